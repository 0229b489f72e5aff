// The page: families and a view become text in Prometheus's exposition format.
// It is rendered ahead of time and never changed afterwards, so that a scrape
// only copies it.

package metrics

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// page is one rendered exposition.
type page struct {
	plain []byte
	// gzip is nil until a scraper has asked for it.
	gzip []byte
	// lengths are the Content-Length headers, made here and not in the scrape.
	plainLength, gzipLength []string
}

func newPage(plain []byte) *page {
	return &page{plain: plain, plainLength: []string{strconv.Itoa(len(plain))}}
}

// compressor makes pages' compressed form. It keeps what a gzip.Writer works with,
// close to a megabyte, which would else be new with each page.
type compressor struct{ writer *gzip.Writer }

func (c *compressor) compress(p *page) error {
	// A page's text is mostly names that come again and again.
	out := bytes.NewBuffer(make([]byte, 0, len(p.plain)/8))
	if c.writer == nil {
		var err error
		if c.writer, err = gzip.NewWriterLevel(out, gzip.BestSpeed); err != nil {
			return fmt.Errorf("compressing the metrics page: %w", err)
		}
	} else {
		c.writer.Reset(out)
	}
	if _, err := c.writer.Write(p.plain); err != nil {
		return fmt.Errorf("compressing the metrics page: %w", err)
	}
	if err := c.writer.Close(); err != nil {
		return fmt.Errorf("compressing the metrics page: %w", err)
	}
	p.gzip, p.gzipLength = out.Bytes(), []string{strconv.Itoa(out.Len())}
	return nil
}

// appendFamilies writes the families that have at least one series. Two series
// with the same labels would make a scraper refuse the whole page; the second
// one is left out.
func appendFamilies(text []byte, families []family, v *View) []byte {
	for i := range families {
		f := &families[i]
		seen := map[string]bool{}
		f.collect(v, func(value float64, labels ...string) {
			key := strings.Join(labels, "\xff")
			if seen[key] {
				return
			}
			if len(seen) == 0 {
				text = fmt.Appendf(text, "# HELP %s %s\n# TYPE %s %s\n", f.name, helpEscaper.Replace(f.help), f.name, f.kind)
			}
			seen[key] = true
			text = appendSeries(text, f, value, labels)
		})
	}
	return text
}

var (
	helpEscaper  = strings.NewReplacer("\\", `\\`, "\n", `\n`)
	labelEscaper = strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)
)

func appendSeries(text []byte, f *family, value float64, labels []string) []byte {
	text = append(text, f.name...)
	for i, name := range f.labels {
		if i == 0 {
			text = append(text, '{')
		} else {
			text = append(text, ',')
		}
		text = append(append(text, name...), `="`...)
		text = append(append(text, labelEscaper.Replace(strings.ToValidUTF8(labels[i], "\uFFFD"))...), '"')
		if i == len(f.labels)-1 {
			text = append(text, '}')
		}
	}
	text = append(text, ' ')
	return append(appendValue(text, value), '\n')
}

// appendValue writes whole numbers without an exponent: byte counts stay legible.
func appendValue(text []byte, value float64) []byte {
	if value == math.Trunc(value) && math.Abs(value) < 1<<53 {
		return strconv.AppendInt(text, int64(value), 10)
	}
	return strconv.AppendFloat(text, value, 'g', -1, 64)
}

// appendGathered writes what the registry of self-metrics holds.
func appendGathered(text []byte, gatherer prometheus.Gatherer) ([]byte, error) {
	families, err := gatherer.Gather()
	if err != nil {
		return text, fmt.Errorf("gathering the agent's own metrics: %w", err)
	}
	out := bytes.NewBuffer(text)
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(out, f); err != nil {
			return text, fmt.Errorf("writing the agent's own metric %s: %w", f.GetName(), err)
		}
	}
	return out.Bytes(), nil
}

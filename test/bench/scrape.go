package main

// A scrape as Prometheus does it, over one connection, from outside the node.
// The floor is a constant page of the same size, served over loopback by the
// simplest handler that Go has.

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const scrapes = 2000

func measureScrape(ctx context.Context, b *bed, results []*Result) error {
	url, err := b.environment("HOSTLER_METRICS")
	if err != nil {
		return err
	}
	// Prometheus asks for compression; here the page itself is meant.
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	page, err := get(ctx, client, url)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve the constant page: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	var ours, floor samples
	for range scrapes {
		for _, side := range []struct {
			url string
			to  *samples
		}{{url, &ours}, {"http://" + listener.Addr().String(), &floor}} {
			began := time.Now()
			if _, err := get(ctx, client, side.url); err != nil {
				return err
			}
			side.to.add(time.Since(began))
		}
	}
	r := results[0]
	r.Set(ours.p99(), len(ours))
	r.SetFloor(floor.p99())
	r.Note = fmt.Sprintf("%d KiB, p50 %s ms; floor: a constant page of that size over loopback, p99", len(page)/1024, number(new(ours.p50())))
	return nil
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("scrape %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape %s: %s", url, response.Status)
	}
	return page, nil
}

// GPUs in the picture, with the bar of their partitions. They are all as high as
// the one that has most to say, so that they stand in line.

package topology

import "strings"

// sizeGPUs makes room for the GPU that has most to say.
func (p *picture) sizeGPUs() {
	notes := 0
	p.gpuHeight = 48
	for i := range p.snapshot.GPUs {
		gpu := &p.snapshot.GPUs[i]
		notes = max(notes, len(p.gpuNotes(gpu)))
		p.cut = p.cut || gpu.MIG != nil && gpu.MIG.MemorySlices > 0
	}
	if p.mixed {
		p.gpuHeight += 15
	}
	if p.cut {
		p.gpuHeight += barHeight + 9
	}
	if notes > 0 {
		p.gpuHeight += float64(notes*noteHeight) + 4
	}
}

func (p *picture) gpuNotes(gpu *GPU) []note {
	notes := p.faultNotes(gpu.Name)
	if len(gpu.Problems) > 0 && !gpu.Lost {
		notes = append(notes, note{"", "note quiet", "unread: " + gpu.Problems[0].Subject})
	}
	notes = append(notes, p.holderNotes(gpu.Name)...)
	for _, partition := range Partitions(gpu) {
		for _, fault := range p.Faults[partition.Name] {
			notes = append(notes, note{"fault", "note bad", partition.Profile.Name + " " + fault})
		}
		for _, holder := range p.Holders[partition.Name] {
			notes = append(notes, note{"pod", "note", partition.Profile.Name + " " + holder.words()})
		}
	}
	return limited(notes)
}

func (p *picture) drawGPU(gpu *GPU, left, top float64) {
	p.used["gpu"] = true
	p.group(joined(", ", gpu.Name, gpu.ProductName, gpu.memory(), gpu.Placement.PCI, gpu.UUID, linksTitle(gpu), gpu.migSummary(),
		gpu.condition(), p.marks(p.snapshot, gpu.Name)))
	p.rect(left, top, cardWidth, p.gpuHeight, 9, p.cardClass("gpu", gpu.Name, ""))
	right := left + cardWidth - cardPadding
	p.text(left+cardPadding, top+22, 76, "name", p.short[gpu.Name])
	p.right(right, top+22, 66, "small", gpu.memory())
	p.text(left+cardPadding, top+38, 90, "mono", shortPCI(gpu.Placement.PCI))
	p.right(right, top+38, 52, "small", p.railTitle(gpu.Name))
	y := top + 48
	if p.mixed {
		p.text(left+cardPadding, y+4, cardInner, "small", gpu.shortProduct())
		y += 15
	}
	if p.cut {
		p.used["mig"] = true
		p.drawPartitions(gpu, left+cardPadding, y-1)
		y += barHeight + 9
	}
	p.notes(p.gpuNotes(gpu), left, y+noteHeight-5)
	p.endGroup()
}

// drawPartitions draws the GPU's memory slices: those of instances in one piece each, the free ones empty.
func (p *picture) drawPartitions(gpu *GPU, left, top float64) {
	if gpu.MIG == nil || gpu.MIG.MemorySlices <= 0 {
		return
	}
	width := float64(cardInner) / float64(gpu.MIG.MemorySlices)
	for slice := range gpu.MIG.MemorySlices {
		p.rect(left+float64(slice)*width, top, width, barHeight, 2, "free")
	}
	for i := range gpu.MIG.Instances {
		instance := &gpu.MIG.Instances[i]
		name, profile := gpu.instanceName(instance), gpu.MIG.profileName(instance.ProfileID)
		class := ""
		switch {
		case len(p.Faults[name]) > 0:
			class, p.used["fault"] = " faulty", true
		case len(p.Holders[name]) > 0:
			class, p.used["cutheld"] = " held", true
		}
		p.used["cut"] = true
		x := left + float64(instance.Placement.Start)*width
		size := min(float64(instance.Placement.Size)*width, left+cardInner-x)
		if size <= 0 {
			continue // a placement beyond the slices that the driver says there are
		}
		p.group(joined(", ", "MIG "+profile, slicesTitle(instance.Placement), name, p.marks(p.snapshot, name)))
		p.rect(x+.5, top, size-1, barHeight, 3, "cut"+class)
		label := profile
		if faceOf("tiny").width(label) > size-3 {
			label, _, _ = strings.Cut(profile, ".")
		}
		p.centred(x+size/2, top+12.5, size-2, "tiny cutname"+class, label)
		p.endGroup()
	}
}

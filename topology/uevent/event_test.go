package uevent

import (
	"strings"
	"testing"
)

func message(fields ...string) []byte { return []byte(strings.Join(fields, "\x00") + "\x00") }

func TestWhatConcernsTheInventory(t *testing.T) {
	const gpu, pf = "/devices/pci0000:16/0000:16:01.0/0000:17:00.0", "/devices/pci0000:16/0000:16:02.0/0000:18:00.0"
	kernel := func(action, devpath, subsystem string) []byte {
		return message(action+"@"+devpath, "ACTION="+action, "DEVPATH="+devpath, "SUBSYSTEM="+subsystem, "SEQNUM=4711")
	}
	cases := []struct {
		name    string
		message []byte
		want    bool
	}{
		{"a GPU is bound to its driver", kernel("bind", gpu, "pci"), true},
		{"a GPU falls off the bus", kernel("remove", gpu, "pci"), true},
		{"a VF appears", kernel("add", pf[:len(pf)-1]+"2", "pci"), true},
		{"a PF's netdev appears", kernel("add", pf+"/net/enp24s0f0np0", "net"), true},
		{"a pod's veth appears", kernel("add", "/devices/virtual/net/veth1234", "net"), false},
		{"an RDMA device appears", kernel("add", pf+"/infiniband/mlx5_0", "infiniband"), true},
		{"a software RDMA device appears", kernel("add", "/devices/virtual/infiniband/rxe0", "infiniband"), true},
		{"its verbs device appears", kernel("add", pf+"/infiniband_verbs/uverbs0", "infiniband_verbs"), true},
		{"its management device appears", kernel("add", pf+"/infiniband_mad/umad0", "infiniband_mad"), true},
		{"the GPU driver is loaded", kernel("add", "/module/nvidia", "module"), true},
		{"the GPU driver is unloaded", kernel("remove", "/module/nvidia_uvm", "module"), true},
		{"the NIC driver is loaded", kernel("add", "/module/mlx5_core", "module"), true},
		{"some other module is loaded", kernel("add", "/module/xt_nat", "module"), false},
		{"a disk changes", kernel("change", "/devices/virtual/block/loop0", "block"), false},
		{"udev repeats an event", append([]byte("libudev\x00\xfe\xed\xca\xfe"), kernel("bind", gpu, "pci")...), false},
		{"no field at all", []byte("bind@" + gpu), false},
		{"nothing", nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e, ok := parse(c.message)
			if got := ok && e.concernsInventory(); got != c.want {
				t.Errorf("read as %+v, %t; of concern: %t, want %t", e, ok, got, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message("add@/module/nvidia", "ACTION=add", "DEVPATH=/module/nvidia", "SUBSYSTEM=module"))
	f.Add([]byte("libudev\x00\xfe\xed\xca\xfe@/"))
	f.Add([]byte("@/\x00SUBSYSTEM=\x00SUBSYSTEM=pci"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, ok := parse(raw)
		if !ok && e != (event{}) {
			t.Errorf("half an event: %+v", e)
		}
		if ok && (e.action == "" || e.devpath[0] != '/' || strings.ContainsRune(e.action+e.devpath+e.subsystem, 0)) {
			t.Errorf("the event is %+v", e)
		}
		if e.concernsInventory() && !strings.Contains(string(raw), "SUBSYSTEM="+e.subsystem) {
			t.Errorf("the event %+v is of concern for a subsystem that the message does not name", e)
		}
	})
}

package main

// What a claim of GPU, NIC and egress adds to a pod's start: pods with and
// without one take turns. A pod has started when its container's first line is
// in the log, by the runtime's clock; the kubelet tells Ready apart only to a
// second (it looks for started containers once a second), too coarse for this
// budget, so Ready is in the note. The floor is the part before the node hears
// of the pod: controller and scheduler making and allocating the claim.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/test/cluster/images"
)

// pairs of pods, one with and one without a claim.
const pairs = 12

// allKinds are what the measured claim asks for, a device of each.
func allKinds() []string { return []string{"gpu", "nic", "egress"} }

// claimsOfFewer are what its parts are told apart by.
func claimsOfFewer() [][]string { return [][]string{{"gpu"}, {"nic"}, {"egress"}, {"gpu", "nic"}} }

// podTimes are from the pod's creation.
type podTimes struct{ scheduled, started, ready samples }

func measurePods(ctx context.Context, b *bed, results []*Result) (err error) {
	remove, err := b.claimTemplates(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(context.WithoutCancel(ctx))) }()
	before, err := b.clocks(ctx, 0)
	if err != nil {
		return err
	}
	var with, without podTimes
	if err := b.takeTurns(ctx, pairs, turn{"", &without}, turn{templateFor(allKinds()), &with}); err != nil {
		return err
	}
	after, err := b.clocks(ctx, before.prepare.count+uint64(pairs+1))
	if err != nil {
		return err
	}
	b.accounts = append(b.accounts, accountForPods(before, after, with, without))
	r := results[0]
	r.Set(with.started.p50()-without.started.p50(), len(with.started))
	r.SetFloor(with.scheduled.p50() - without.scheduled.p50())
	r.Note = fmt.Sprintf("%.0f ms against %.0f ms to the container's first line (Ready: %.0f and %.0f); floor: until scheduled",
		with.started.p50(), without.started.p50(), with.ready.p50(), without.ready.p50())
	return b.addedByEach(ctx, with.started.p50()-without.started.p50(), results[1])
}

// turn is a kind of pod, by the template of its claim, "" for none.
type turn struct {
	template string
	times    *podTimes
}

// takeTurns starts so many pods of each kind. The first of each warms the caches.
func (b *bed) takeTurns(ctx context.Context, rounds int, turns ...turn) error {
	for i := range rounds + 1 {
		for _, t := range turns {
			times := t.times
			if i == 0 {
				times = &podTimes{}
			}
			if err := b.startPod(ctx, fmt.Sprintf("%s-%d", cmp.Or(t.template, "plain"), i), t.template, times); err != nil {
				return err
			}
		}
	}
	return nil
}

// addedByEach accounts for claims of fewer devices, beside pods without any. The figure
// is that of a GPU with its NIC.
func (b *bed) addedByEach(ctx context.Context, all float64, figure *Result) error {
	var without podTimes
	turns := []turn{{"", &without}}
	for _, kinds := range claimsOfFewer() {
		turns = append(turns, turn{templateFor(kinds), &podTimes{}})
	}
	if err := b.takeTurns(ctx, pairs/2, turns...); err != nil {
		return err
	}
	var parts []part
	for _, t := range turns[1:] {
		added := t.times.started.p50() - without.started.p50()
		parts = append(parts, part{t.template, added})
		if t.template == templateFor([]string{"gpu", "nic"}) {
			figure.Set(added, len(t.times.started))
			figure.SetFloor(t.times.scheduled.p50() - without.scheduled.p50())
			figure.Note = fmt.Sprintf("%.0f ms against %.0f ms to the container's first line; floor: until scheduled", t.times.started.p50(), without.started.p50())
		}
	}
	b.accounts = append(b.accounts, account{"what a claim adds, by what it asks for", append(parts, part{templateFor(allKinds()), all})})
	return nil
}

// accountForPods takes apart what the claim added. The agent's parts are means of its own
// counts, the warm-up among them.
func accountForPods(before, after *clocks, with, without podTimes) account {
	all, scheduled := with.started.p50()-without.started.p50(), with.scheduled.p50()-without.scheduled.p50()
	parts, rest := []part{{"until scheduled: the claim is made and allocated", scheduled}}, all-scheduled
	mean := func(what string, spent clock) {
		parts = append(parts, part{what, milliseconds(spent.sum) / (pairs + 1)})
		rest -= milliseconds(spent.sum) / (pairs + 1)
	}
	mean("prepare, in the agent", after.prepare.minus(before.prepare))
	for _, hook := range []struct{ name, what string }{{"attach", "attach, in the runtime's hook"}, {"admit", "admit, in the agent"}} {
		mean(hook.what, after.hooks[hook.name].minus(before.hooks[hook.name]))
	}
	return account{"what a claim adds to a pod's start", append(parts,
		part{"kubelet and runtime: the claim's calls, device nodes, mounts and hooks", rest}, part{"all", all})}
}

// startPod starts a pod, takes its times and removes it.
func (b *bed) startPod(ctx context.Context, name, template string, times *podTimes) (err error) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		// Not 0: that deletes the pod before the kubelet has unprepared its claim.
		TerminationGracePeriodSeconds: ptr.To[int64](5),
		RestartPolicy:                 corev1.RestartPolicyNever,
		AutomountServiceAccountToken:  ptr.To(false),
		Containers: []corev1.Container{{Name: "main", Image: images.Busybox, ImagePullPolicy: corev1.PullNever,
			Command: []string{"sh", "-c", "echo started; trap 'exit 0' TERM; sleep 1000000 & wait"}}},
	}}
	if template != "" {
		pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "claim", ResourceClaimTemplateName: ptr.To(template)}}
		pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "claim"}}
	}
	api := b.client.CoreV1().Pods(namespace)
	events, err := b.watchPod(ctx, name)
	if err != nil {
		return err
	}
	defer events.Stop()
	began := time.Now()
	if _, err := api.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make pod %s: %w", name, err)
	}
	if err := b.follow(ctx, events, began, times); err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	for event := range events.ResultChan() {
		if event.Type == watch.Deleted {
			return b.claimsGone(ctx)
		}
	}
	return fmt.Errorf("pod %s: the watch ended before it was gone: %w", name, context.Cause(ctx))
}

// watchPod begins where a list ends: a watch without a resource version would
// wait for the API server's cache to catch up with etcd.
func (b *bed) watchPod(ctx context.Context, name string) (watch.Interface, error) {
	api, options := b.client.CoreV1().Pods(namespace), metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	list, err := api.List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	options.ResourceVersion = list.ResourceVersion
	events, err := api.Watch(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watch pod %s: %w", name, err)
	}
	return events, nil
}

// follow waits until the pod is Ready, and reads when it started from its log.
func (b *bed) follow(ctx context.Context, events watch.Interface, began time.Time, times *podTimes) error {
	scheduled := false
	for event := range events.ResultChan() {
		now := time.Now()
		pod, isPod := event.Object.(*corev1.Pod)
		if !isPod {
			return fmt.Errorf("the watch ended: %v", event.Object)
		}
		if pod.Spec.NodeName != "" && !scheduled {
			scheduled = true
			times.scheduled.add(now.Sub(began))
		}
		if !isReady(pod) {
			continue
		}
		times.ready.add(now.Sub(began))
		started, err := b.firstLine(ctx, pod.Name)
		if err != nil {
			return err
		}
		times.started.add(started.Sub(began))
		return nil
	}
	return errors.Join(errors.New("it did not become Ready"), context.Cause(ctx))
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// firstLine is the time at which the runtime got the container's first line.
func (b *bed) firstLine(ctx context.Context, pod string) (at time.Time, err error) {
	err = eventually(ctx, "the container's first line is in the log", func() (bool, error) {
		log, err := b.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Timestamps: true}).DoRaw(ctx)
		if err != nil {
			return false, fmt.Errorf("read the log: %w", err)
		}
		stamp, _, found := strings.Cut(string(log), " ")
		if !found {
			return false, nil // a container counts as started before it has said anything
		}
		at, err = time.Parse(time.RFC3339Nano, stamp)
		return err == nil, err
	})
	return at, err
}

// claimsGone waits until no claim is left, so that the next pod starts on a quiet node.
func (b *bed) claimsGone(ctx context.Context) error {
	return eventually(ctx, "the pod's claim is gone", func() (bool, error) {
		list, err := b.client.ResourceV1().ResourceClaims(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, fmt.Errorf("list claims: %w", err)
		}
		return len(list.Items) == 0, nil
	})
}

// Package gate is the door behind NRI. The OCI hook hostler-gate, which is in
// the CDI spec of every claim, asks here whether its container may start; a
// container whose answer is not yes does not.
//
// The question is one line of JSON on a unix socket, together with a descriptor
// of the container's network namespace (SCM_RIGHTS), so that the answer is
// about that very namespace and not about one that a path leads to. The answer
// is one line of JSON too. Only root can reach the socket.
package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
)

// Question is what the hook sends.
type Question struct {
	Claim        types.UID `json:"claim"`
	Container    string    `json:"container"`
	Sandbox      string    `json:"sandbox"`
	PodUID       types.UID `json:"podUID"`
	PodNamespace string    `json:"podNamespace"`
	PodName      string    `json:"podName"`
	// NetNS is the namespace's path in the container's configuration.
	NetNS string `json:"netns"`
	// Capabilities of any of the container's sets.
	Capabilities []string `json:"capabilities,omitempty"`
}

// Answer is what it gets. Reason is for the pod's events.
type Answer struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// Admitter decides; *attach.Attacher does.
type Admitter interface {
	Admit(ctx context.Context, container attach.Container, descriptor int) error
}

// Config of a Server.
type Config struct {
	// Socket is the path to listen on.
	Socket   string
	Admitter Admitter
	// Timeout bounds one answer; it must be below the hook's own. Default: 8s.
	Timeout time.Duration
}

// Server answers hooks.
type Server struct {
	cfg      Config
	listener *net.UnixListener
}

// maxQuestion is more than any container's names can take.
const maxQuestion = 16 << 10

// Listen opens the socket. One that a killed agent left behind is replaced.
func Listen(cfg Config) (*Server, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 8 * time.Second
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the gate's socket: %w; check paths.run", err)
	}
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace the gate's socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the gate's socket %s: %w", cfg.Socket, err)
	}
	if err := os.Chmod(cfg.Socket, 0o600); err != nil {
		return nil, fmt.Errorf("cannot keep others off the gate's socket: %w", errors.Join(err, listener.Close()))
	}
	// A successor listens under the same path before this process has ended.
	listener.SetUnlinkOnClose(false)
	return &Server{cfg: cfg, listener: listener}, nil
}

// Run answers until ctx is done, and then until those who have asked are answered.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		conn, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, syscall.ECONNABORTED) {
			continue // the hook gave up before its turn (accept(2))
		}
		if err != nil {
			return fmt.Errorf("the gate's socket failed: %w", err)
		}
		asking.Go(func() { s.serve(context.WithoutCancel(ctx), conn) })
	}
}

func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	log := klog.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		log.Error(err, "The gate cannot bound a call")
		return
	}
	answer := Answer{OK: true}
	question, err := s.answer(ctx, conn)
	if err != nil {
		answer = Answer{Reason: err.Error()}
		log.Error(err, "Refused a container", "pod", klog.KRef(question.PodNamespace, question.PodName), "claim", question.Claim, "container", question.Container)
	} else {
		log.V(4).Info("Admitted a container", "pod", klog.KRef(question.PodNamespace, question.PodName), "claim", question.Claim, "container", question.Container)
	}
	if err := json.NewEncoder(conn).Encode(answer); err != nil {
		log.Error(err, "The gate's answer did not reach the hook", "claim", question.Claim)
	}
}

func (s *Server) answer(ctx context.Context, conn *net.UnixConn) (Question, error) {
	question, descriptor, err := receive(conn)
	if err != nil {
		return question, err
	}
	defer unix.Close(descriptor)
	if question.Claim == "" || question.PodUID == "" {
		return question, errors.New("the hook named no claim or no pod; the container runtime must set the pod's annotations in the container's configuration (containerd 2 and CRI-O do)")
	}
	sandbox := attach.Sandbox{ID: question.Sandbox, NetNS: question.NetNS,
		Pod: netattach.PodReference{UID: question.PodUID, Namespace: question.PodNamespace, Name: question.PodName}}
	container := attach.Container{Sandbox: sandbox, Claim: question.Claim, Capabilities: question.Capabilities}
	return question, s.cfg.Admitter.Admit(ctx, container, descriptor)
}

// receive reads one line and the descriptor that came with its first byte.
func receive(conn *net.UnixConn) (question Question, descriptor int, err error) {
	descriptor = -1
	defer func() {
		if err != nil && descriptor >= 0 {
			err = errors.Join(err, unix.Close(descriptor))
		}
	}()
	var line []byte
	for buffer, control := make([]byte, 4096), make([]byte, 64); !bytes.ContainsRune(line, '\n'); {
		n, controlled, _, _, err := conn.ReadMsgUnix(buffer, control)
		if err != nil {
			return question, descriptor, fmt.Errorf("the hook's question ended early: %w", err)
		}
		if controlled > 0 && descriptor >= 0 {
			return question, descriptor, errors.New("the hook passed more than one network namespace")
		}
		if controlled > 0 {
			if descriptor, err = descriptorIn(control[:controlled]); err != nil {
				return question, descriptor, err
			}
		}
		if line = append(line, buffer[:n]...); n == 0 || len(line) > maxQuestion {
			return question, descriptor, errors.New("the hook's question is not one line of JSON")
		}
	}
	if err := json.Unmarshal(line, &question); err != nil {
		return question, descriptor, fmt.Errorf("the hook's question is not JSON: %w", err)
	}
	if descriptor < 0 {
		return question, descriptor, errors.New("the hook passed no network namespace")
	}
	return question, descriptor, nil
}

func descriptorIn(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return -1, errors.Join(errors.New("the hook passed no descriptor"), err)
	}
	// The buffer for control messages has room for one message of few descriptors.
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) == 0 {
		return -1, errors.Join(errors.New("the hook passed no descriptor"), err)
	}
	for _, extra := range descriptors[1:] {
		err = errors.Join(err, unix.Close(extra))
	}
	unix.CloseOnExec(descriptors[0])
	return descriptors[0], err
}

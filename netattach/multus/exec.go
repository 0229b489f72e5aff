package multus

// Running one plugin. libcni's own Exec kills the plugin alone when its context
// ends, and then waits for whoever else holds its output open: for a child of
// the plugin that hangs, for ever (os/exec, Cmd.WaitDelay). Here the plugin's
// children end with it.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// groupExec is libcni's Exec with an end.
type groupExec struct {
	version.PluginDecoder
}

var _ invoke.Exec = (*groupExec)(nil)

func (*groupExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

func (*groupExec) ExecPlugin(ctx context.Context, path string, input []byte, environ []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, path)
	command.Env, command.Stdin, command.Stdout, command.Stderr = environ, bytes.NewReader(input), &stdout, &stderr
	command.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return unix.Kill(-command.Process.Pid, unix.SIGKILL) }
	command.WaitDelay = time.Second
	err := command.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("plugin %s did not answer and was killed: %w", path, context.Cause(ctx))
	}
	// A plugin that fails prints the reason (CNI specification, "Error").
	said := &types.Error{}
	if parse := json.Unmarshal(stdout.Bytes(), said); parse == nil && said.Msg != "" {
		return nil, said
	}
	return nil, fmt.Errorf("plugin %s failed without a reason: %w: %s", path, err, strings.TrimSpace(stdout.String()+" "+stderr.String()))
}

package ha

import (
	"context"
	"encoding/json"

	"github.com/pgregent/pgregent/ha/rest"
)

func (n *Node) Restart(context.Context, rest.RestartRequest) error { return &rest.Refusal{Text: "restart failed"} }

func (n *Node) ScheduleRestart(rest.RestartRequest) error { return &rest.Refusal{Text: "restart failed"} }

func (n *Node) CancelRestart() bool { return false }

func (n *Node) Reinitialize(rest.ReinitializeRequest) error { return &rest.Refusal{Text: "restart failed"} }

func (n *Node) CancelReinitialize() bool { return false }

func (n *Node) ChangeConfig(context.Context, bool, func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	return nil, &rest.Refusal{Text: "not yet"}
}

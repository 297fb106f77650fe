defmodule Group.Event do
  @moduledoc """
  One change in a `Group`, as seen by one replica.

  `type` is `:registered`, `:unregistered`, `:joined` or `:left`. `previous_meta` is set when a process
  replaced its own metadata. `reason` says why a process is gone: its exit reason, `{:nodedown, node}`,
  `:conflict`, or nil when it left by itself.
  """

  defstruct [:type, :supervisor, :cluster, :key, :pid, :meta, :previous_meta, :reason]

  @type t :: %__MODULE__{
          type: :registered | :unregistered | :joined | :left,
          supervisor: atom(),
          cluster: atom() | nil,
          key: String.t(),
          pid: pid(),
          meta: term(),
          previous_meta: term(),
          reason: term()
        }
end

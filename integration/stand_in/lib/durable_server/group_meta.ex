defmodule DurableServer.GroupMeta do
  @moduledoc "What the registry has of a server."

  defstruct [:key, :module, :storage_key, :node_ref, :start_time, :user_meta, :supervisor]
end

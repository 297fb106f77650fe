defmodule DurableServer.GroupMeta do
  @moduledoc "The metadata of a server in the registry."

  defstruct [:key, :module, :storage_key, :node_ref, :start_time, :user_meta, :supervisor]
end

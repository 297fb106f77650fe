defmodule Store.Audit do
  @moduledoc """
  Runs `durable-handoff-node audit` as an operator does.

  The program is the one that `DURABLE_HANDOFF_NODE` names; otherwise `cargo build` builds it.
  """

  import ExUnit.Assertions, only: [flunk: 1]

  @root Path.expand("../../../..", __DIR__)

  @doc "The program's path. Builds the program if the environment names none."
  @spec program() :: String.t()
  def program, do: System.get_env("DURABLE_HANDOFF_NODE") || build()

  @doc "Runs the audit of a store with these options. Returns its output and exit status."
  @spec run(String.t(), keyword(), String.t(), [String.t()]) :: {String.t(), non_neg_integer()}
  def run(program, options, prefix, more \\ []) do
    arguments = ["audit", "--store", options[:url], "--prefix", prefix | more]
    System.cmd(program, arguments, env: environment(options[:config] || []))
  end

  # The environment variables of S3's own tools.
  defp environment(config) do
    names = [
      endpoint: "AWS_ENDPOINT_URL",
      region: "AWS_REGION",
      access_key_id: "AWS_ACCESS_KEY_ID",
      secret_access_key: "AWS_SECRET_ACCESS_KEY"
    ]

    for {name, value} <- config, do: {Keyword.fetch!(names, name), value}
  end

  defp build do
    arguments = ~w(build --quiet --locked --package rust_node --bin durable-handoff-node)

    case System.cmd("cargo", arguments, cd: @root, stderr_to_stdout: true) do
      {_output, 0} ->
        Path.join(System.get_env("CARGO_TARGET_DIR") || Path.join(@root, "target"), "debug/durable-handoff-node")

      {output, _status} ->
        flunk("durable-handoff-node does not build:\n" <> output)
    end
  end
end

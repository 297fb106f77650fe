defmodule RustNode do
  @moduledoc """
  The real `durable-handoff-node` as a process of the operating system, for tests.

      rust = RustNode.start([a, b])
      RustNode.signal(rust, "KILL")

  Guarantees: `start/2` returns once every given node knows it; the process is gone after the
  test, when no node knows it any more, and when the test's VM dies. The cookie goes there in a file that
  only its owner may read.

  The program is the one that `DURABLE_HANDOFF_NODE` names; otherwise `cargo build` builds it.
  """

  import ExUnit.Assertions, only: [flunk: 1]

  @enforce_keys [:name, :port, :os_pid]
  defstruct @enforce_keys

  @type t :: %__MODULE__{name: node(), port: port(), os_pid: String.t()}

  # Ends the program when the other end is gone; a port alone only closes its standard input. Not once it has
  # ended by itself: its number may be another one's by then.
  @wrapper ~S"""
  exec 3<&0
  "$@" &
  pid=$!
  echo "pid $pid"
  { cat <&3 >/dev/null; kill -KILL $pid 2>/dev/null; } &
  reader=$!
  wait $pid
  status=$?
  kill $reader 2>/dev/null
  echo "exit $status"
  """

  @doc """
  Starts a Rust node that connects to `nodes`, and waits until each of them knows it. `arguments` are passed
  to the program.
  """
  @spec start([node()], [String.t()]) :: t()
  def start(nodes, arguments \\ []) do
    for node <- nodes, do: {:ok, _apps} = Cluster.call(node, Application, :ensure_all_started, [:durable_handoff])
    name = :"#{Cluster.unique("rust")}@127.0.0.1"
    connect = Enum.map_join(nodes, ",", &Atom.to_string/1)
    run = ["run", "--name", Atom.to_string(name), "--connect", connect, "--cookie-file", cookie_file()]
    port = open(run ++ arguments)
    rust = %__MODULE__{name: name, port: port, os_pid: await_line(port, &rest(&1, "pid "))}
    # The port has ended with the test.
    ExUnit.Callbacks.on_exit(fn ->
      for node <- nodes, do: Cluster.wait_until(fn -> not still_announced?(node, name) end)
    end)

    for node <- nodes, do: Cluster.wait_until(fn -> announced?(node, name) end)
    rust
  end

  @doc "The address and port of the HTTP service of a Rust node that was started with `--http`."
  @spec http(t()) :: String.t()
  def http(rust),
    do: await_line(rust.port, &(~r/serving HTTP address=(.*)/ |> Regex.run(&1) |> List.wrap() |> Enum.at(1)))

  @doc "Whether `node` knows the Rust node with this name."
  @spec announced?(node(), node()) :: boolean()
  def announced?(node, name), do: name in for({other, _pid, _release} <- announced(node), do: other)

  @doc "The Rust nodes that `node` knows."
  @spec announced(node()) :: [DurableHandoff.RustNodes.rust_node()]
  def announced(node), do: Cluster.call(node, DurableHandoff.RustNodes, :all, [])

  @doc "Sends a signal, such as \"KILL\", \"TERM\" or \"STOP\"."
  @spec signal(t(), String.t()) :: :ok
  def signal(rust, signal) do
    {_output, 0} = System.cmd("kill", ["-" <> signal, rust.os_pid])
    :ok
  end

  @doc "Waits for the program's end; its exit status."
  @spec await_exit(t()) :: String.t()
  def await_exit(rust), do: await_line(rust.port, &rest(&1, "exit "))

  @doc "Runs another command of the program: its output and exit status."
  @spec command([String.t()]) :: {String.t(), non_neg_integer()}
  def command(arguments),
    do: System.cmd(program(), arguments ++ ["--cookie-file", cookie_file()], env: environment(), stderr_to_stdout: true)

  defp open(arguments) do
    Port.open({:spawn_executable, System.find_executable("sh")}, [
      :binary,
      :stderr_to_stdout,
      line: 4_096,
      args: ["-c", @wrapper, "durable-handoff-node", program() | arguments],
      env: for({name, value} <- environment(), do: {String.to_charlist(name), String.to_charlist(value)})
    ])
  end

  # Reads the program's output until `read` returns a result for a line.
  defp await_line(port, read, before \\ []) do
    receive do
      {^port, {:data, {_end, line}}} -> read.(line) || await_line(port, read, [line | before])
    after
      60_000 -> flunk("the Rust node printed no such line: #{inspect(Enum.reverse(before))}")
    end
  end

  defp rest(line, start), do: if(String.starts_with?(line, start), do: String.replace_prefix(line, start, ""))

  # The node may be gone.
  defp still_announced?(node, name) do
    announced?(node, name)
  rescue
    ErlangError -> false
  end

  defp environment, do: [{"DURABLE_HANDOFF_LOG_FORMAT", "text"}]

  defp cookie_file do
    path = Temporary.path("cookie")
    File.write!(path, "", [:exclusive])
    File.chmod!(path, 0o600)
    File.write!(path, Atom.to_string(Node.get_cookie()))
    path
  end

  @doc "The path of the program."
  @spec program() :: Path.t()
  def program, do: System.get_env("DURABLE_HANDOFF_NODE") || built()

  defp built do
    case :persistent_term.get(__MODULE__, nil) do
      nil ->
        path = build()
        :persistent_term.put(__MODULE__, path)
        path

      path ->
        path
    end
  end

  defp build do
    root = Path.expand("../../..", __DIR__)
    arguments = ["build", "--quiet", "--locked", "--package", "rust_node", "--bin", "durable-handoff-node"]

    case System.cmd("cargo", arguments, cd: root, stderr_to_stdout: true) do
      {_output, 0} ->
        Path.join([System.get_env("CARGO_TARGET_DIR") || Path.join(root, "target"), "debug/durable-handoff-node"])

      {output, _status} ->
        flunk("durable-handoff-node does not build:\n" <> output)
    end
  end
end

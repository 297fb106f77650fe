defmodule HandoffDemo.Control do
  @moduledoc """
  This node's connection to the driver: events go out, commands come in. Frames of `{packet, 4}`, the external
  term format both ways.

  The node lives no longer than the connection: when the driver closes it, for any reason, the node halts. So
  a driver that is killed leaves no nodes behind.
  """

  use GenServer, shutdown: 30_000

  alias HandoffDemo.{Commands, Config}

  @connect_ms 10_000

  @doc false
  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: __MODULE__)

  @doc "Sends an event, and returns when it has been sent."
  @spec send_event(tuple()) :: :ok
  def send_event(event), do: GenServer.call(__MODULE__, {:send, event}, :infinity)

  @doc "Sends an event asynchronously."
  @spec event_soon(tuple()) :: :ok
  def event_soon(event), do: GenServer.cast(__MODULE__, {:send, event})

  @impl true
  def init(config) do
    # For terminate/2: a node that stops sends its last events before the connection closes.
    Process.flag(:trap_exit, true)
    # Commands are decoded with existing atoms only. Loading the module creates their atoms.
    {:module, Commands} = Code.ensure_loaded(Commands)

    options = [:binary, packet: 4, active: true, nodelay: true]

    with {:ok, socket} <- :gen_tcp.connect({127, 0, 0, 1}, config.port, options, @connect_ms),
         :ok <- send_term(socket, {:hello, config.token, config.label}) do
      {:ok, socket}
    else
      {:error, reason} -> {:stop, {:driver_unreachable, reason}}
    end
  end

  @impl true
  def handle_call({:send, event}, _from, socket) do
    # A failure means that the driver is gone; the socket's own message about it follows.
    _ = send_term(socket, event)
    {:reply, :ok, socket}
  end

  @impl true
  def handle_cast({:send, event}, socket) do
    _ = send_term(socket, event)
    {:noreply, socket}
  end

  @impl true
  def handle_info({:tcp, socket, frame}, socket) do
    {id, name, arguments} = :erlang.binary_to_term(frame, [:safe])
    # The command runs in a process of its own: it may take long, and this process must notice when the driver
    # ends.
    {:ok, _pid} = Task.start(fn -> send_event({:reply, id, Commands.run(name, arguments)}) end)
    {:noreply, socket}
  end

  def handle_info({:tcp_closed, socket}, socket), do: System.halt(1)
  def handle_info({:tcp_error, socket, _reason}, socket), do: System.halt(1)
  def handle_info({:EXIT, _port_or_pid, _reason}, socket), do: {:noreply, socket}

  @impl true
  def terminate(_reason, socket), do: :gen_tcp.close(socket)

  defp send_term(socket, term), do: :gen_tcp.send(socket, :erlang.term_to_binary(term))
end

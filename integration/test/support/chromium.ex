defmodule Chromium do
  @moduledoc """
  Headless Chromium with one page, driven over its debugging pipe.

      browser = Chromium.start()
      Chromium.open(browser, "http://127.0.0.1:9464/")
      Chromium.evaluate(browser, "document.title")

  Guarantees: every call ends within a minute; the browser and its profile are gone after the test.
  """

  use GenServer

  @call_ms 60_000
  # --no-sandbox: it does not work for root, and the pages are our own.
  @flags ~w(--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions
            --disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe)

  @type browser :: pid()

  @doc "Starts a browser with an empty page."
  @spec start() :: browser()
  def start, do: ExUnit.Callbacks.start_supervised!(__MODULE__)

  @doc false
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [])

  @doc "Opens an address, and waits until the page is loaded."
  @spec open(browser(), String.t()) :: :ok
  def open(browser, url) do
    command(browser, "Page.navigate", %{url: url})
    Cluster.wait_until(fn -> evaluate(browser, "document.readyState + location.href") == "complete" <> url end)
    :ok
  end

  @doc "The value of a JavaScript expression. A promise is awaited."
  @spec evaluate(browser(), String.t()) :: term()
  def evaluate(browser, expression) do
    params = %{expression: expression, returnByValue: true, awaitPromise: true}
    answer = command(browser, "Runtime.evaluate", params)
    if error = answer["exceptionDetails"], do: ExUnit.Assertions.flunk("#{expression}: #{inspect(error)}")
    answer["result"]["value"]
  end

  @doc "Sets the width and height of the window, and whether the user prefers dark colours."
  @spec look(browser(), pos_integer(), pos_integer(), boolean()) :: :ok
  def look(browser, width, height, dark?) do
    size = %{width: width, height: height, deviceScaleFactor: 1, mobile: width < 640}
    command(browser, "Emulation.setDeviceMetricsOverride", size)
    scheme = %{name: "prefers-color-scheme", value: if(dark?, do: "dark", else: "light")}
    command(browser, "Emulation.setEmulatedMedia", %{features: [scheme]})
    :ok
  end

  @doc "Presses and releases a key: \"Tab\" or \"Enter\"."
  @spec press(browser(), String.t()) :: :ok
  def press(browser, key) do
    {code, text} = if key == "Enter", do: {13, "\r"}, else: {9, ""}
    event = %{key: key, code: key, windowsVirtualKeyCode: code, text: text}
    command(browser, "Input.dispatchKeyEvent", Map.put(event, :type, if(text == "", do: "rawKeyDown", else: "keyDown")))
    command(browser, "Input.dispatchKeyEvent", %{event | text: ""} |> Map.put(:type, "keyUp"))
    :ok
  end

  @doc "Writes a PNG of the whole page."
  @spec screenshot(browser(), Path.t()) :: :ok
  def screenshot(browser, path) do
    %{"data" => data} = command(browser, "Page.captureScreenshot", %{format: "png", captureBeyondViewport: true})
    File.write!(path, Base.decode64!(data))
  end

  @doc "The requested addresses and the errors on the console since the start."
  @spec seen(browser()) :: %{requests: [String.t()], errors: [String.t()]}
  def seen(browser), do: GenServer.call(browser, :seen, @call_ms)

  defp command(browser, method, params) do
    case GenServer.call(browser, {:command, method, params}, @call_ms) do
      {:ok, result} -> result
      {:error, error} -> ExUnit.Assertions.flunk("#{method}: #{inspect(error)}")
    end
  end

  @impl GenServer
  def init([]) do
    Process.flag(:trap_exit, true)
    # Its pipe is file descriptors 3 and 4; it ends when they are closed.
    script = ~S(exec "$@" 3<&0 4>&1 >/dev/null 2>&1)
    profile = "--user-data-dir=" <> Temporary.path("chromium")
    arguments = ["-c", script, "chromium", "chromium"] ++ @flags ++ [profile, "about:blank"]
    port = Port.open({:spawn_executable, System.find_executable("sh")}, [:binary, :exit_status, args: arguments])
    state = %{port: port, buffer: "", next: 1, waiting: %{}, session: nil, requests: [], errors: []}
    {target, state} = ask(state, "Target.createTarget", %{url: "about:blank"})
    attach = %{targetId: target["targetId"], flatten: true}
    {session, state} = ask(state, "Target.attachToTarget", attach)
    state = %{state | session: session["sessionId"]}

    state =
      for domain <- ~w(Page Runtime Network Log), reduce: state do
        state -> state |> ask(domain <> ".enable", %{}) |> elem(1)
      end

    {:ok, state}
  end

  @impl GenServer
  def handle_call({:command, method, params}, from, state) do
    {id, state} = send_command(state, method, params)
    {:noreply, put_in(state.waiting[id], from)}
  end

  def handle_call(:seen, _from, state), do: {:reply, Map.take(state, [:requests, :errors]), state}

  @impl GenServer
  def handle_info({port, {:data, data}}, %{port: port} = state), do: {:noreply, take(state, data)}
  def handle_info({port, {:exit_status, status}}, %{port: port} = state), do: {:stop, {:chromium_ended, status}, state}
  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, state) do
    if Port.info(state.port) do
      {_id, _state} = send_command(%{state | session: nil}, "Browser.close", %{})
      await_end(state.port)
    end
  end

  defp await_end(port) do
    receive do
      {^port, {:exit_status, _status}} -> :ok
      {^port, {:data, _data}} -> await_end(port)
    after
      @call_ms -> Port.close(port)
    end
  end

  # At the start, before any other request.
  defp ask(state, method, params) do
    {id, state} = send_command(state, method, params)
    await(put_in(state.waiting[id], :start), id)
  end

  defp await(%{port: port} = state, id) do
    case state.waiting do
      %{^id => {:answer, {:ok, result}}} ->
        {result, %{state | waiting: Map.delete(state.waiting, id)}}

      %{^id => :start} ->
        receive do
          {^port, {:data, data}} -> await(take(state, data), id)
          {^port, {:exit_status, status}} -> exit({:chromium_ended, status})
        after
          @call_ms -> exit(:chromium_does_not_answer)
        end
    end
  end

  defp send_command(state, method, params) do
    message = %{id: state.next, method: method, params: params}
    message = if state.session, do: Map.put(message, :sessionId, state.session), else: message
    Port.command(state.port, [DurableHandoff.Codec.encode!(message), 0])
    {state.next, %{state | next: state.next + 1}}
  end

  # Messages end with a zero byte.
  defp take(state, data) do
    {messages, [rest]} = (state.buffer <> data) |> :binary.split(<<0>>, [:global]) |> Enum.split(-1)
    Enum.reduce(messages, %{state | buffer: rest}, &message(DurableHandoff.Codec.decode!(&1), &2))
  end

  defp message(%{"id" => id} = answer, state) do
    result = if error = answer["error"], do: {:error, error}, else: {:ok, answer["result"]}

    case Map.pop(state.waiting, id) do
      {nil, _waiting} ->
        state

      {:start, waiting} ->
        %{state | waiting: Map.put(waiting, id, {:answer, result})}

      {from, waiting} ->
        GenServer.reply(from, result)
        %{state | waiting: waiting}
    end
  end

  defp message(%{"method" => "Network.requestWillBeSent", "params" => params}, state),
    do: %{state | requests: [params["request"]["url"] | state.requests]}

  defp message(%{"method" => "Runtime.exceptionThrown", "params" => params}, state),
    do: %{state | errors: [inspect(params["exceptionDetails"]) | state.errors]}

  defp message(%{"method" => "Log.entryAdded", "params" => %{"entry" => %{"level" => "error"} = entry}}, state),
    do: %{state | errors: [inspect(entry) | state.errors]}

  defp message(_event, state), do: state
end

defmodule DurableHandoff.Doctor.Environment do
  @moduledoc false
  # The checks of `DurableHandoff.Doctor` that need no supervisor: libraries, machine, versions.

  alias DurableHandoff.{Host, Native, Store}

  @spec findings() :: [map()]
  def findings do
    [machine(), library("handoff_nif", Native.check())] ++ store() ++ [durable_server(), application()]
  end

  defp machine do
    text =
      "#{architecture()}#{libc()}; Elixir #{System.version()}, OTP #{System.otp_release()}; durable_handoff #{version()}"

    finding(:machine, :ok, text)
  end

  defp architecture, do: List.to_string(:erlang.system_info(:system_architecture))

  defp libc do
    case glibc() do
      nil -> ""
      {major, minor} -> ", glibc #{major}.#{minor}"
    end
  end

  # The build scripts have the same function, but their modules are not part of the application.
  defp glibc do
    with getconf when is_binary(getconf) <- System.find_executable("getconf"),
         {"glibc " <> version, 0} <- System.cmd(getconf, ["GNU_LIBC_VERSION"], stderr_to_stdout: true),
         do: parse(version),
         else: (_other -> nil)
  end

  defp parse(text) do
    with [_all, major, minor] <- Regex.run(~r/\A(\d{1,4})\.(\d{1,4})/, text),
         do: {String.to_integer(major), String.to_integer(minor)}
  end

  defp version, do: :durable_handoff |> Application.spec(:vsn) |> to_string()

  defp library(name, :ok), do: finding(:library, :ok, "#{name} is loaded#{needs(name)}")

  defp library(name, {:error, error}), do: finding(:library, :problem, Exception.message(error) <> needs(name))

  defp store do
    cond do
      not Application.get_env(:durable_handoff, :store, true) ->
        [finding(:library, :note, "store_nif is left out: config :durable_handoff, store: false")]

      match?({:error, %{reason: :not_loaded}}, Store.Native.check()) ->
        # Loading the library here would keep it in a VM that does not use it.
        [finding(:library, :note, "store_nif is loaded when a store is first opened#{needs("store_nif")}")]

      true ->
        [library("store_nif", Store.Native.check())]
    end
  end

  defp needs(name) do
    with priv when is_list(priv) <- :code.priv_dir(:durable_handoff),
         {:ok, <<0x7F, "ELF", _rest::binary>> = bytes} <- File.read(Path.join([priv, "native", name <> ".so"])),
         [_ | _] = versions <- for([text] <- Regex.scan(~r/(?<=GLIBC_)\d+\.\d+/, bytes), do: parse(text)) do
      {major, minor} = Enum.max(versions)
      "; it needs glibc #{major}.#{minor} or newer"
    else
      _unknown -> ""
    end
  end

  defp durable_server do
    Host.ensure_loaded!()
    Host.Version.check!()

    case Host.Version.describe() do
      {:info, text} -> finding(:durable_server, :ok, text)
      {:warning, text} -> finding(:durable_server, :warning, text, "use a verified version: #{verified()}")
    end
  rescue
    error in ArgumentError -> finding(:durable_server, :problem, Exception.message(error))
  end

  defp verified, do: Enum.join(Host.Version.verified(), ", ")

  defp application do
    if Process.whereis(DurableHandoff.TopSupervisor) do
      finding(:application, :ok, "durable_handoff runs")
    else
      finding(
        :application,
        :note,
        "durable_handoff does not run in this VM",
        "on a node of the cluster: check that the dependency has no `runtime: false` and that the release holds it"
      )
    end
  end

  defp finding(check, state, text, todo \\ nil),
    do: %{check: check, supervisor: nil, state: state, text: String.trim(text), todo: todo}
end

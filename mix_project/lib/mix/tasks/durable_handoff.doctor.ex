defmodule Mix.Tasks.DurableHandoff.Doctor do
  @shortdoc "Looks for what would keep drains from working"

  @moduledoc """
  Looks for what would keep drains from working, and says what to do: `DurableHandoff.Doctor`.

      mix durable_handoff.doctor
      mix durable_handoff.doctor --node app@10.0.0.7 --cookie secret

  Without `--node` it compiles this project and checks libraries, machine and versions, without starting the
  application.

  Options:

    * `--node NAME`: asks that running node, which needs this library. This VM joins the cluster as a hidden
      node meanwhile.
    * `--cookie COOKIE`: the cookie of that node; by default `RELEASE_COOKIE`, or the one in
      `~/.erlang.cookie`.
    * `--supervisor NAME`: looks at this supervisor alone, such as `MyApp.Durable`. May be given several
      times.

  A node that uses IPv6 or TLS is reached with the same options, as on Fly.io:
  `ELIXIR_ERL_OPTIONS="-proto_dist inet6_tcp" mix durable_handoff.doctor --node my-app@fdaa::2`. From inside the node
  `bin/my_app rpc 'DurableHandoff.Doctor.print()'` does the same.

  Exit status: 0 when nothing is wrong (warnings included), 1 when there is a problem or the node cannot be
  asked.
  """

  use Mix.Task

  alias DurableHandoff.Doctor

  @switches [node: :string, cookie: :string, supervisor: :keep]
  # More than the checks of a few supervisors may take.
  @answer_ms 120_000

  @impl true
  def run(args) do
    {options, arguments} = OptionParser.parse!(args, strict: @switches)
    if arguments != [], do: Mix.raise("unexpected #{Enum.join(arguments, " ")}; " <> usage(hd(arguments)))
    Mix.Task.run("app.config")
    names = for {:supervisor, name} <- options, do: atom(name)
    arguments = if names == [], do: [], else: [supervisors: names]
    findings = if name = options[:node], do: ask(name, options[:cookie], arguments), else: Doctor.run(arguments)
    Mix.shell().info(Doctor.format(findings))
    unless Doctor.healthy?(findings), do: exit({:shutdown, 1})
  end

  defp usage(argument), do: "did you mean #{if argument =~ "@", do: "--node", else: "--supervisor"} #{argument}?"

  # From this command's own arguments: MyApp.Durable, or my_durable.
  defp atom(":" <> name), do: atom(name)
  defp atom(name), do: if(name =~ ~r/^[A-Z]/, do: Module.concat([name]), else: String.to_atom(name))

  defp ask(name, cookie, arguments) do
    unless name =~ ~r/^[^@\s]+@[^@\s]+$/, do: Mix.raise("--node takes a name such as app@10.0.0.7, got #{name}")
    node = String.to_atom(name)
    join(name)
    cookie = cookie || System.get_env("RELEASE_COOKIE")
    if cookie, do: Node.set_cookie(String.to_atom(cookie))

    unless Node.connect(node) == true do
      Mix.raise("""
      #{name} cannot be reached. Is that its full name (`node()` in its console)? Is its cookie given with --cookie? Are epmd's \
      port 4369 and its distribution port open from here? Does it use IPv6 or TLS, and this VM not \
      (ELIXIR_ERL_OPTIONS="-proto_dist inet6_tcp")?\
      """)
    end

    try do
      :erpc.call(node, Doctor, :run, [arguments], @answer_ms)
    catch
      :error, {:exception, :undef, _stack} ->
        Mix.raise("#{name} has no DurableHandoff.Doctor: it runs without durable_handoff, or with an older version.")

      :error, {:erpc, reason} ->
        Mix.raise("#{name} did not answer: #{inspect(reason)}")
    end
  end

  # Long names and short ones cannot talk to each other.
  defp join(name) do
    kind = if name |> String.split("@") |> List.last() |> String.contains?("."), do: :longnames, else: :shortnames
    host = if kind == :longnames, do: "@127.0.0.1", else: ""

    unless Node.alive?() do
      # Hidden: the other nodes of the cluster do not see it.
      Application.put_env(:kernel, :dist_auto_connect, :never)

      case :net_kernel.start(:"doctor-#{System.pid()}#{host}", %{name_domain: kind, hidden: true}) do
        {:ok, _pid} -> :ok
        {:error, _reason} -> Mix.raise("This VM cannot become a node: is epmd there? Start it with `epmd -daemon`.")
      end
    end
  end
end

defmodule DurableHandoff.DocumentationTest do
  @moduledoc "Compares options and names in the documentation with the code."
  use ExUnit.Case, async: true

  alias DurableHandoff.{Client, Options, Rebalance, Schema, Store}

  @root Path.expand("../../..", __DIR__)

  # Files of users or other programs, and one that packing creates.
  @others_files ~w(mix.exs application.ex compose.yaml rel/env.sh.eex checksum-durable_handoff.exs)
  @others_functions ~w(terminate/2 init/1 prep_stop/1 rehome_child/3)
  # The name of a process on the wire.
  @others_modules ~w(DurableHandoff.Agent)

  setup_all do
    files = files()
    # Each word is kept once, because most words occur in many files.
    words = for file <- files, source?(file), word <- words(file), into: MapSet.new(), do: word
    {:ok, paths: Enum.map(files, &Path.relative_to(&1, @root)), words: words}
  end

  describe "options" do
    test "each value in an example is valid" do
      values = for page <- pages(), code <- code(page), {name, value} <- options(code), do: {page.name, name, value}
      assert length(values) > 20

      invalid =
        for {page, name, value} <- values,
            problems = Enum.map(entries(name), &Schema.problems(inspect(name), &1[:type], value)),
            [] not in problems,
            do: {page, List.flatten(problems)}

      assert invalid == []
    end

    test "no handoff_on_shutdown in an example has an unknown option" do
      lists = for page <- pages(), code <- code(page), {:handoff_on_shutdown, given} <- literals(code), do: given
      assert length(lists) > 5
      for given <- lists, do: assert(%Options{} = Options.new!(given))
    end

    test "each default in the text is the default of the option" do
      stated =
        for page <- pages(),
            sentence <- sentences(page),
            {name, default} <- defaults(sentence),
            do: {page.name, name, default}

      assert length(stated) >= 5

      wrong =
        for {page, name, default} <- stated,
            not Enum.any?(entries(name), &default?(&1, default)),
            do: {page, name, default}

      assert wrong == []
    end

    # Another store has none of the states of an application that copies an example.
    test "an example keeps the backend of the application, and the store that can replace DurableServer's own has no path" do
      backends =
        for page <- pages(),
            ast <- code(page),
            {{:__aliases__, _, [:DurableHandoff, :Supervisor]}, options} <- Macro.prewalker(ast),
            Keyword.keyword?(options),
            backend = options[:backend],
            do: {page.name, Macro.to_string(backend)}

      assert [{"README.md", _}, {"docs/guides/getting-started.md", _}] = backends
      for {page, backend} <- backends, do: assert({page, backend} == {page, "backend"})

      assert [_before, section] =
               String.split(page("docs/STORES.md").text, "\n## From the S3 backend of DurableServer\n")

      [section | _others] = String.split(section, "\n## ")
      assert [[_, url]] = Regex.scan(~r/url: "([^"]+)"/, section)
      assert URI.parse(url).path in [nil, ""]
    end

    test "the sum of a shutdown's parts has the defaults of the library and of DurableServer" do
      page = page("docs/guides/shutdown.md")
      assert [[_, name, seconds]] = Regex.scan(~r/`(graceful_shutdown_\w+)`, (\d+) s by default/, page.text)
      assert File.read!(Path.join(@root, "mix_project/lib/durable_handoff/host.ex")) =~ ":#{name}, #{seconds}_000"

      [_, endpoint] = Regex.run(~r/endpoint alone waits (\d+) s/, page.text)
      drain = div(Options.schema()[:timeout_ms][:default], 1_000)
      sum = String.to_integer(endpoint) + drain + String.to_integer(seconds)

      assert page.text =~
               "With these defaults 1 to 3 take at most #{sum} s. With a margin of 5 s for the rest that is #{sum + 5} s"
    end

    test "the gap up to which a drain raises its limit is that of the limiter" do
      limiter = File.read!(Path.join(@root, "native/handoff_core/src/limiter/tuning.rs"))
      [_, short_ms] = Regex.run(~r/const SHORT: f64 = (\d+)_000\.0;/, limiter)
      stated = Regex.scan(~r/(?:less than|p50` above)\s(\d+)/, page("docs/guides/tuning.md").text)
      assert length(stated) == 3
      for [_, stated_ms] <- stated, do: assert(stated_ms == short_ms)
    end

    test "the budget of each platform's guide is the time that its files give a node" do
      kubernetes = page("docs/guides/deploy-kubernetes.md").text
      [_, grace] = Regex.run(~r/terminationGracePeriodSeconds: (\d+)/, kubernetes)
      [_, pause] = Regex.run(~r/preStop:\s+sleep:\s+seconds: (\d+)/, kubernetes)
      assert budget("deploy-kubernetes") == [1_000 * (String.to_integer(grace) - String.to_integer(pause))]

      for {guide, setting} <- [
            {"deploy-docker", ~r/stop_grace_period: (\d+)s|--stop-timeout (\d+)|stop -t (\d+)|TimeoutStopSec=(\d+)/},
            {"deploy-fly", ~r/kill_timeout = "(\d+)s"/}
          ] do
        times = for [_ | groups] <- Regex.scan(setting, page("docs/guides/#{guide}.md").text), do: List.last(groups)
        assert Enum.uniq(budget(guide)) == times |> Enum.uniq() |> Enum.map(&(1_000 * String.to_integer(&1)))
      end
    end
  end

  describe "names" do
    test "the pods of the manifest find each other by their headless Service, and the Rust node finds them there" do
      beam = page("docs/deployment/kubernetes-beam.yaml").text
      assert [[_, service]] = Regex.scan(~r/^  name: (\S+)\nspec:\n  clusterIP: None$/m, beam)
      assert [[_, query]] = Regex.scan(~r/- name: DNS_CLUSTER_QUERY\n +value: (\S+)$/m, beam)
      assert hd(String.split(query, ".")) == service
      assert page("docs/deployment/kubernetes-node.yaml").text =~ ~r/^ +value: app@#{Regex.escape(query)}$/m
    end

    test "each file and folder exists", %{paths: paths} do
      named = for page <- pages(), span <- spans(page), path = path(span), do: {page.name, path}
      assert length(named) > 100

      assert [] ==
               for({page, path} <- named, path not in @others_files, not exists?(path, paths), do: {page, path})
    end

    test "the versions of DurableServer that were not run are not among those that were" do
      [_, first] = Regex.run(~r/^(\S+) and later were not run/m, page("docs/guides/upgrading.md").text)
      assert page("README.md").text =~ "[#{first} and later]"
      ran = Regex.scan(~r/^\| (\d[^ +]*)\S* \|/m, File.read!(Path.join(@root, "integration/stand_in/VERIFIED.md")))
      assert length(ran) > 2
      for [_, version] <- ran, do: assert(Version.compare(version, first) == :lt)
    end

    test "each module exists", %{words: words} do
      ours = for module <- Application.spec(:durable_handoff, :modules), do: "." <> inspect(module)
      named = for page <- pages(), span <- spans(page), module = module(span), do: {page.name, module}
      assert length(named) > 50

      assert [] ==
               for({page, name} <- named, name not in @others_modules, not module?(name, ours, words), do: {page, name})
    end

    test "each function exists, with that number of arguments" do
      exported = for module <- Application.spec(:durable_handoff, :modules), do: {module, exports(module)}
      named = for page <- pages(), span <- spans(page), call = call(span), do: {page.name, call}
      assert length(named) > 30
      assert [] == for({page, call} <- named, not function?(call, exported), do: {page, call})
    end

    test "each name of an option, an event, a field or a reason is in the sources", %{words: words} do
      named =
        for page <- pages(),
            span <- spans(page),
            path(span) == nil,
            [name] <- Regex.scan(~r/\b[a-z]+(?:_[a-z]+)+\b/, span),
            do: {page.name, name}

      assert length(named) > 100
      # `dns_cluster` is an external package. The changelog has a table of replaced names.
      old =
        for [_, was] <- Regex.scan(~r/^\| (.*) \| .* \|$/m, page("CHANGELOG.md").text),
            [name] <- Regex.scan(~r/\w+/, was),
            do: name

      assert [] == for({page, name} <- named, name not in ["dns_cluster" | old], name not in words, do: {page, name})
    end
  end

  defp pages do
    # `docs/changes` uses names of earlier versions, so it is left out.
    for pattern <- ~w(README.md CONTRIBUTING.md CHANGELOG.md docs/*.md docs/{guides,deployment,decisions}/*.md),
        file <- Path.wildcard(Path.join(@root, pattern)),
        do: page(Path.relative_to(file, @root))
  end

  defp page(name), do: %{name: name, text: File.read!(Path.join(@root, name))}

  defp without_code(page), do: String.replace(page.text, ~r/^```.*?^```$/ms, "")

  # The texts in backquotes, and the Elixir code blocks.
  defp spans(page), do: for([_, span] <- Regex.scan(~r/`([^`\n]+)`/, without_code(page)), do: span)

  defp code(page) do
    blocks = for [_, code] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, page.text), do: code
    lists = for span <- spans(page), span =~ ~r/^[a-z_]+: /, do: "[#{span}]"
    for text <- blocks ++ lists, {:ok, ast} <- [parse(text)], do: ast
  end

  # A block may be a part of a list, for example a single option.
  defp parse(text), do: with({:error, _} <- Code.string_to_quoted(text), do: Code.string_to_quoted("[#{text}]"))

  # The options in a piece of code whose values are literals.
  defp options(ast), do: for({name, value} <- literals(ast), entries(name) != [], do: {name, value})

  defp literals(ast) do
    for {name, value} when is_atom(name) <- Macro.prewalker(ast),
        Macro.quoted_literal?(value),
        do: {name, elem(Code.eval_quoted(value), 0)}
  end

  # Options of supervisor, rebalance, store and caller may have the same name.
  defp entries(name) do
    for schema <- [Options.schema(), Rebalance.Settings.schema(), Store.Options.schema(), Client.Options.schema()],
        entry = schema[name],
        do: entry
  end

  defp sentences(page), do: page |> without_code() |> String.replace(~r/\s+/, " ") |> String.split(~r/(?<=[.;:|]) /)

  @number ~S/(\d[\d,._]*) ?(s|ms|MB|%)?/
  defp defaults(sentence) do
    numbers =
      for pattern <- [
            "`(\\w+)`,? \\(?#{@number} by default",
            "`(\\w+)`[^`]*\\(default #{@number}\\)",
            "`(\\w+)` \\(#{@number}\\)"
          ],
          [_, name, number | unit] <- Regex.scan(Regex.compile!(pattern), sentence),
          option = known(name),
          do: {option, in_unit(number, unit)}

    values =
      for [_, name, value] <- Regex.scan(~r/`(\w+): (:\w+|true|false|\d+)`, the default/, sentence),
          option = known(name),
          do: {option, elem(Code.eval_string(value), 0)}

    numbers ++ values
  end

  defp known(name) do
    schemas = Options.schema() ++ Rebalance.Settings.schema() ++ Store.Options.schema()
    Enum.find(Keyword.keys(schemas), &(to_string(&1) == name))
  end

  defp in_unit(number, unit) do
    {number, ""} = number |> String.replace(~r/[,_]/, "") |> Float.parse()
    number * Map.fetch!(%{[] => 1, ["s"] => 1_000, ["ms"] => 1, ["MB"] => 1_048_576, ["%"] => 0.01}, unit)
  end

  # A default that depends on the situation is in the option's own text.
  defp default?(entry, value) when is_number(value) do
    case entry[:default] do
      nil -> entry[:doc] =~ "#{grouped(trunc(value))} "
      default -> is_number(default) and default == value
    end
  end

  defp default?(entry, value), do: entry[:default] == value

  defp grouped(number), do: Regex.replace(~r/\d(?=(\d{3})+$)/, to_string(number), "\\0,")

  defp budget(guide) do
    for [_, ms] <- Regex.scan(~r/shutdown_budget_ms: ([\d_]+)/, page("docs/guides/#{guide}.md").text),
        do: ms |> String.replace("_", "") |> String.to_integer()
  end

  defp path(span) do
    own = ~r/^(\.\/)?(native|rust_node|mix_project|integration|docs|test|lib)\/[\w.*\/-]+$/
    file = ~r/^[\w.\/-]*\w\.(exs?|rs|toml|ya?ml|service|eex|md)$/
    folder = ~r/^[a-z_]+\/$/
    if Enum.any?([own, file, folder], &(span =~ &1)), do: String.replace_prefix(span, "./", "")
  end

  # Documents name files by the end of their path.
  defp exists?(path, paths) do
    name = "/" <> String.trim_trailing(path, "/")
    Enum.any?(paths, &(String.ends_with?("/" <> &1, name) or String.contains?("/" <> &1, name <> "/")))
  end

  # No folder of build output or dependencies.
  defp files do
    crates = ~w(native/* rust_node integration/driver integration/package_stage)
    folders = ~w(src lib tests benches examples fuzz_targets)
    of_crates = for crate <- crates, pattern <- ["*" | Enum.map(folders, &(&1 <> "/**"))], do: "#{crate}/#{pattern}"

    of_projects =
      ~w(mix_project/{mix,lib,test}/** integration/{lib,test}/** integration/stand_in/* integration/stand_in/lib/**)

    for pattern <-
          ~w(* {.cargo,.github,docs,test}/** {mix_project,integration}/* integration/*.d/**) ++ of_crates ++ of_projects,
        file <- Path.wildcard(Path.join(@root, pattern), match_dot: true),
        do: file
  end

  defp source?(file),
    do: Path.extname(file) not in ~w(.md .svg .png .json) and File.regular?(file) and file != __ENV__.file

  defp words(file), do: ~r/\w+/ |> Regex.scan(File.read!(file)) |> Enum.uniq() |> Enum.map(&hd/1)

  defp module(span), do: if(span =~ ~r/^[A-Z][a-z]\w*(\.[A-Z]\w*)*$/, do: span)

  # Our modules are found by the end of their names; of other modules and of Rust paths each part has to be in
  # the sources.
  defp module?(name, ours, words) do
    Enum.any?(ours, &String.ends_with?(&1, "." <> name)) or
      (not String.starts_with?(name, "DurableHandoff") and Enum.all?(String.split(name, "."), &(&1 in words)))
  end

  defp call(span) do
    case Regex.run(~r/^(?:([A-Z][\w.]*)\.)?([a-z_]+[?!]?)\/(\d)$/, span) do
      [call, module, function, arity] -> {call, module, String.to_atom(function), String.to_integer(arity)}
      nil -> nil
    end
  end

  defp function?({call, "", function, arity}, exported),
    do: call in @others_functions or Enum.any?(exported, fn {_module, exports} -> {function, arity} in exports end)

  defp function?({_call, module, function, arity}, exported) do
    ours = Enum.filter(exported, fn {name, _} -> String.ends_with?("." <> inspect(name), "." <> module) end)

    case ours do
      [] ->
        String.starts_with?(module, "DurableServer") or
          {function, arity} in exports(Module.concat([module]))

      [_ | _] ->
        Enum.any?(ours, fn {_module, exports} -> {function, arity} in exports end)
    end
  end

  defp exports(module) do
    Code.ensure_loaded!(module)
    module.module_info(:exports)
  end
end

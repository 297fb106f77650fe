# Configuration of ex_doc for ./integration/docs.
#
# Pages are copied to a directory first, because their links are those of the repository: a link to another page of
# the documentation becomes one to its HTML, any other one to the source.
root = File.cwd!()
staged = System.fetch_env!("HANDOFF_DOCS_STAGED")
source_url = "https://example.com/durable_handoff"

pages = [
  {"Start", "README.md", "readme"},
  {"Start", "docs/guides/getting-started.md", "getting-started"},
  {"Deploy", "docs/guides/shutdown.md", "shutdown"},
  {"Deploy", "docs/guides/deploy-docker.md", "deploy-docker"},
  {"Deploy", "docs/guides/deploy-kubernetes.md", "deploy-kubernetes"},
  {"Deploy", "docs/guides/deploy-fly.md", "deploy-fly"},
  {"Deploy", "docs/guides/libraries.md", "libraries"},
  {"Operate", "docs/guides/balance.md", "balance"},
  {"Operate", "docs/guides/tuning.md", "tuning"},
  {"Operate", "docs/guides/metrics.md", "metrics"},
  {"Operate", "docs/guides/troubleshooting.md", "troubleshooting"},
  {"Operate", "docs/guides/upgrading.md", "upgrading"},
  {"Operate", "docs/guides/rust-node.md", "rust-node"},
  {"Operate", "docs/STORES.md", "stores"},
  {"Operate", "docs/RELIABILITY.md", "reliability"},
  {"Project", "CHANGELOG.md", "changelog"},
  {"Project", "docs/changes/0.1.0.md", "changes-0-1-0"}
]

names = Map.new(pages, fn {_group, source, name} -> {source, name} end)

picture = fn target ->
  File.mkdir_p!(Path.join(staged, "assets"))
  File.cp!(Path.join(root, target), Path.join([staged, "assets", Path.basename(target)]))
  Path.basename(target)
end

rewrite = fn source, text ->
  Regex.replace(~r/\]\(([^)\s:#]+)(#[^)\s]*)?\)/, text, fn _whole, link, anchor ->
    target = link |> Path.expand(Path.join("/", Path.dirname(source))) |> Path.relative_to("/")

    cond do
      name = names[target] -> "](#{name}.md#{anchor})"
      Path.extname(target) == ".svg" -> "](assets/#{picture.(target)})"
      File.exists?(Path.join(root, target)) -> "](#{source_url}/blob/main/#{target}#{anchor})"
      true -> raise "#{source} links to #{link}, which does not exist"
    end
  end)
end

for {_group, source, name} <- pages do
  text = rewrite.(source, File.read!(Path.join(root, source)))
  File.write!(Path.join(staged, name <> ".md"), text)
end

[
  extras: for({_group, _source, name} <- pages, do: {Path.join(staged, name <> ".md"), filename: name}),
  groups_for_extras:
    for(
      group <- pages |> Enum.map(&elem(&1, 0)) |> Enum.uniq(),
      do: {group, for({^group, _source, name} <- pages, do: Path.join(staged, name <> ".md"))}
    ),
  groups_for_modules: [
    "Move servers": [
      DurableHandoff,
      DurableHandoff.Supervisor,
      DurableHandoff.Drainer,
      DurableHandoff.Client,
      DurableHandoff.Options,
      DurableHandoff.Policy
    ],
    Watch: [
      DurableHandoff.Doctor,
      DurableHandoff.Plan,
      DurableHandoff.Report,
      DurableHandoff.Log,
      DurableHandoff.Telemetry
    ],
    "Store states": [DurableHandoff.Store, DurableHandoff.Codec, DurableHandoff.Codec.Encodable],
    Errors: [DurableHandoff.NativeError, DurableHandoff.Store.ListingError, DurableHandoff.Codec.DecodeError]
  ],
  main: "readme",
  assets: %{Path.join(staged, "assets") => "assets"},
  # On a phone a cell keeps a readable width, and the table scrolls.
  before_closing_head_tag: fn _format ->
    "<style>@media (max-width: 768px) { .content-inner td { min-width: 7em; } }</style>"
  end,
  source_url: source_url,
  source_url_pattern: source_url <> "/blob/main/mix_project/%{path}#L%{line}",
  # They name what has been renamed or hidden since.
  skip_undefined_reference_warnings_on:
    for(name <- ["changelog", "changes-0-1-0"], do: Path.join(staged, name <> ".md"))
]

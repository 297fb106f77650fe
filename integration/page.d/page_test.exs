defmodule PageTest do
  @moduledoc """
  The Rust node's page in headless Chromium, beside a cluster that drains. What it shows is compared with what
  `/status` says, and with the drain's own report.
  """

  use HandoffCase, nodes: 3

  @servers 40
  @gaps ~w(p50 p90 p99 max)
  @themes [light: false, dark: true]

  # What the page shows, by the `data-key` of its elements.
  @shown """
  (() => {
    const texts = root => Object.fromEntries([...root.querySelectorAll("[data-key]")].map(n => [n.dataset.key, n.textContent]));
    const all = (selector, more) => [...document.querySelectorAll(selector)].map(n => ({ ...texts(n), ...more(n) }));
    const bars = n => [...n.querySelectorAll("rect")].map(r => Number(r.dataset.count));
    return {
      ready: document.getElementById("ready").textContent,
      nodes: all("#nodes tr", () => ({})),
      drains: all("#drains > article", n => ({ drain: n.dataset.drain, bars: bars(n),
        progress: [n.querySelector("progress").value, n.querySelector("progress").max] })),
      ended: all("#ended > details", n => ({ number: Number(n.dataset.ended), bars: bars(n) })),
      refused: all("#refused tr", () => ({})),
      unreachable: all("#unreachable tr", n => ({ labels: [...n.cells].map(c => c.dataset.label) })),
      none: !document.getElementById("no-unreachable").hidden, table: !document.getElementById("absent").hidden,
    };
  })()
  """

  # Lets the page poll once, and then gets the JSON.
  @polled "(async () => { await poll(); return { status: await (await fetch('status')).json(), shown: " <>
            String.trim(@shown) <> " }; })()"

  setup %{nodes: [a | _others]} = context do
    connect = Enum.flat_map(context[:connect] || [], &["--connect", &1])
    rust = RustNode.start(context.nodes, ["--http", "127.0.0.1:0" | connect])
    browser = Chromium.start()
    start_cluster(context)
    start_servers(context, a, @servers)
    url = "http://#{RustNode.http(rust)}/"
    Chromium.look(browser, 1_100, 900, false)
    Chromium.open(browser, url)
    {:ok, a: a, rust: rust, browser: browser, url: url}
  end

  test "nodes, a running drain, its report and refusals are shown as in the JSON", context do
    %{a: a, browser: browser} = context
    nodes = shown_as(browser, &node_rows/1, &Map.take(&1, ["nodes"]), &(servers(&1) == @servers))
    assert Enum.count(nodes["nodes"], &(&1["state"] == "running")) == 3

    refused_text = "<img src=x onerror=fail()>"
    Cluster.call(a, :erlang, :send, [{:durable_handoff, context.rust.name}, {:durable_handoff, 1, :"#{refused_text}"}])

    refused = shown_as(browser, &refused_rows/1, &Map.take(&1, ["refused"]), &(&1["refused"] != []))
    assert [%{"node" => node, "why" => why}] = refused["refused"]
    assert {node, why =~ refused_text} == {Atom.to_string(a), true}
    assert Chromium.evaluate(browser, "document.querySelectorAll('main img').length") == 0

    hold_after(context, 10)
    long = [timeout_ms: 600_000, attempt_timeout_ms: 600_000]
    assert {:ok, :started} = drain(context, a, [await: false] ++ long)
    wait_until(fn -> match?(%{"drains" => [%{"moved" => 10}]}, status(context)) end)
    drains = shown_as(browser, &drain_cards/1, &Map.take(&1, ["drains"]), &match?(%{"drains" => [_one]}, &1))
    assert [%{"bars" => bars, "moved" => moved}] = drains["drains"]
    assert Enum.sum(bars) == String.to_integer(moved)
    screenshots(browser, "running")
    SimulatedStore.resume(context.store)

    wait_until(fn -> match?({:ok, %{state: :drained}}, status(context, a)) end)
    {:ok, %{report: report}} = status(context, a)
    ended = shown_as(browser, &ended_boxes/1, &Map.take(&1, ["ended"]), &match?(%{"ended" => [_one]}, &1))
    assert [%{"ended" => "done", "bars" => bars, "targets" => targets}] = ended["ended"]
    assert Enum.sum(bars) == report.moved
    for {name, count} <- report.targets, do: assert(targets =~ "#{name} #{count}")

    opens_with_the_keyboard(browser)
    for {_theme, dark?} <- @themes, do: fits_a_phone(browser, dark?)
    screenshots(browser, "ended")

    assert %{errors: [], requests: requests} = Chromium.seen(browser)
    assert Enum.uniq(for request <- requests, do: URI.parse(request).authority) == [URI.parse(context.url).authority]
  end

  # Names of nodes that do not exist: one with markup, and one that is wider than a phone.
  @nowhere ["<img>nowhere@127.0.0.1", String.duplicate("long_name_", 12) <> "@127.0.0.1"]

  @tag connect: @nowhere
  test "nodes that are not connected are shown with cause, error and advice as in the JSON", context do
    %{a: a, browser: browser, rust: rust} = context
    causes = fn status -> Enum.frequencies(for node <- status["unreachable"], do: node["cause"]) end
    shown_as(browser, &unreachable_rows/1, & &1, &(causes.(&1) == %{"unknown_name" => 2}))

    # One of the nodes gets another cookie for the Rust node.
    Cluster.call(a, Node, :set_cookie, [rust.name, :another])
    Cluster.call(a, Node, :disconnect, [rust.name])
    shown = shown_as(browser, &unreachable_rows/1, & &1, &(causes.(&1) == %{"unknown_name" => 2, "cookie" => 1}))
    assert Enum.sort(for row <- shown["unreachable"], do: row["node"]) == Enum.sort([Atom.to_string(a) | @nowhere])

    for row <- shown["unreachable"] do
      assert row["labels"] == ["Node", "Cause", "Error", "What to do", "Tried", "Since"]
      assert row["advice"] =~ if(row["cause"] == "cookie", do: "DURABLE_HANDOFF_COOKIE", else: "epmd -names")
    end

    assert Chromium.evaluate(browser, "document.querySelectorAll('main img').length") == 0
    screenshots(browser, "not-connected")
    keeps_words_whole(browser)
    for {_theme, dark?} <- @themes, do: fits_a_phone(browser, dark?)
    labels_its_cells(browser)
    Chromium.look(browser, 1_100, 900, false)
    reaches_the_content_with_the_keyboard(browser)

    Cluster.call(a, Node, :set_cookie, [rust.name, Node.get_cookie()])
    shown_as(browser, &unreachable_rows/1, & &1, &(causes.(&1) == %{"unknown_name" => 2}))

    assert %{errors: [], requests: requests} = Chromium.seen(browser)
    assert Enum.uniq(for request <- requests, do: URI.parse(request).authority) == [URI.parse(context.url).authority]
  end

  test "the page and a status weigh less than 60 KB, and nothing else is loaded", %{browser: browser} = context do
    shown = shown_as(browser, &unreachable_rows/1, & &1, &(servers(&1) == @servers))
    assert %{"none" => true, "table" => false, "unreachable" => []} = shown

    weights = """
    (() => {
      const of = kind => performance.getEntriesByType(kind).map(entry => [entry.name, entry.transferSize]);
      return [...of("navigation"), ...of("resource")];
    })()
    """

    loaded = for [url, bytes] <- Chromium.evaluate(browser, weights), do: {url, bytes}
    assert Enum.uniq(for {url, _bytes} <- loaded, do: url) == [context.url, context.url <> "status"]
    # The status is loaded again and again.
    weight = loaded |> Map.new() |> Map.values() |> Enum.sum()
    IO.puts("the page and one status: #{weight} bytes")
    assert weight > 10_000 and weight < 60_000
  end

  test "a killed node is shown as not answering, with its last known figures", %{browser: browser} = context do
    shown_as(browser, &node_rows/1, &Map.take(&1, ["nodes"]), &(servers(&1) == @servers))
    RustNode.signal(context.rust, "KILL")
    RustNode.await_exit(context.rust)

    assert Chromium.evaluate(browser, "poll().then(() => document.getElementById('contact').textContent)") =~
             "No answer"

    assert Enum.count(Chromium.evaluate(browser, @shown)["nodes"], &(&1["state"] == "running")) == 3
  end

  # Waits until `fits` is true for the JSON and the page shows what `expected` derives from it.
  defp shown_as(browser, expected, part, fits) do
    wait_until(fn ->
      %{"status" => status, "shown" => shown} = Chromium.evaluate(browser, @polled)
      if fits.(status) and contains?(part.(shown), expected.(status)), do: part.(shown)
    end)
  end

  # All expected values are shown; further ones are ignored.
  defp contains?(shown, expected) when is_map(expected),
    do: Enum.all?(expected, fn {key, value} -> contains?(shown[key], value) end)

  defp contains?(shown, expected) when is_list(expected) and is_list(shown) do
    length(shown) == length(expected) and
      Enum.all?(Enum.zip(shown, expected), fn {one, other} -> contains?(one, other) end)
  end

  defp contains?(shown, expected), do: shown == expected

  defp node_rows(status) do
    %{"nodes" => Enum.flat_map(status["nodes"], &rows_of_node/1)}
  end

  # For example the node of this test.
  defp rows_of_node(%{"supervisors" => []} = node),
    do: [%{"node" => node["name"], "supervisor" => "–", "servers" => "–"}]

  defp rows_of_node(node) do
    for supervisor <- node["supervisors"] do
      %{
        "node" => node["name"],
        "library" => node["library"],
        "supervisor" => supervisor["name"],
        "release" => supervisor["release"] || "–",
        "servers" => number(supervisor["servers"]),
        "state" => state(supervisor)
      }
    end
  end

  defp state(%{"cordoned" => true}), do: "cordoned"
  defp state(%{"draining" => true}), do: "draining"
  defp state(_supervisor), do: "running"

  defp refused_rows(status),
    do: %{"refused" => for(refusal <- status["refused"], do: Map.take(refusal, ["node", "why"]))}

  defp unreachable_rows(status) do
    rows =
      for node <- status["unreachable"] do
        cause = String.replace(node["cause"], "_", " ")

        Map.merge(Map.take(node, ["error", "advice"]), %{
          "node" => node["name"],
          "cause" => cause,
          "times" => number(node["times"]),
          "since" => age(node["since_s"])
        })
      end

    %{"unreachable" => rows, "table" => rows != [], "none" => rows == []}
  end

  defp drain_cards(status) do
    cards =
      for drain <- status["drains"] do
        counts = for key <- ~w(moved left in_flight limit displaced failures), into: %{}, do: {key, number(drain[key])}

        counts
        |> Map.merge(gaps(drain))
        |> Map.merge(%{
          "drain" => drain["node"] <> " " <> drain["supervisor"],
          "stage" => stage(drain),
          "progress" => [drain["moved"] + drain["left"], drain["total"]]
        })
      end

    %{"drains" => cards}
  end

  defp stage(%{"stage" => stage, "waits_for" => nil}), do: stage
  defp stage(%{"stage" => stage, "waits_for" => waits_for}), do: "#{stage}, waits for: #{waits_for}"

  defp ended_boxes(status) do
    boxes =
      for drain <- status["ended"] do
        counts = for key <- ~w(attempts failures retried highest limit), into: %{}, do: {key, number(drain[key])}
        time = span(drain["duration_ms"] * 1_000)
        moved = "#{number(drain["moved"])} of #{number(drain["total"])} moved in #{time}"
        counts |> Map.merge(gaps(drain)) |> Map.merge(%{"ended" => drain["ended"], "moved" => moved})
      end

    %{"ended" => boxes}
  end

  defp gaps(drain), do: for(key <- @gaps, into: %{}, do: {key, span(drain["gap_us"][key])})

  defp number(count), do: Integer.to_string(count)

  defp span(us) when us < 10_000, do: "#{div(us, 1_000)}" <> tenths(div(rem(us, 1_000), 100)) <> " ms"
  defp span(us) when us < 10_000_000, do: "#{div(us, 1_000)} ms"
  defp span(us), do: "#{div(us, 1_000_000)}" <> tenths(div(rem(us, 1_000_000), 100_000)) <> " s"

  defp age(s) when s < 120, do: "#{s} s"
  defp age(s) when s < 7_200, do: "#{div(s, 60)} min"

  defp tenths(0), do: ""
  defp tenths(count), do: ".#{count}"

  defp servers(status) do
    Enum.sum(for node <- status["nodes"], supervisor <- node["supervisors"], do: supervisor["servers"])
  end

  defp status(%{url: url}) do
    {:ok, {{_version, 200, _reason}, _headers, body}} = :httpc.request(String.to_charlist(url <> "status"))
    body |> IO.iodata_to_binary() |> DurableHandoff.Codec.decode!()
  end

  # A column that is narrower than its longest word would break that word.
  defp keeps_words_whole(browser) do
    broken = """
    [...document.querySelectorAll("#absent th, #absent [data-key=cause]")].flatMap(cell => {
      const text = cell.firstChild, words = [...text.data.matchAll(/\\S+/g)];
      const lines = word => {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        return range.getClientRects().length;
      };
      return words.filter(word => lines(word) > 1).map(word => word[0]);
    })
    """

    assert Chromium.evaluate(browser, broken) == []
  end

  # On a phone the table has no header, so each cell has a label.
  defp labels_its_cells(browser) do
    Chromium.look(browser, 400, 800, false)
    shown = "getComputedStyle(document.querySelector('#unreachable [data-key=advice]'), '::before')"
    assert Chromium.evaluate(browser, shown <> ".content") =~ "What to do"
    assert Chromium.evaluate(browser, shown <> ".display") != "none"
  end

  defp reaches_the_content_with_the_keyboard(browser) do
    Chromium.press(browser, "Tab")
    assert Chromium.evaluate(browser, "document.activeElement.textContent") == "Skip to the content"
    Chromium.press(browser, "Enter")
    wait_until(fn -> Chromium.evaluate(browser, "location.hash") == "#main" end)
    # Tables have no elements with focus, so the links below them come next.
    Chromium.press(browser, "Tab")
    assert Chromium.evaluate(browser, "document.activeElement.getAttribute('href')") == "status"
    # The roles of the table, its rows and its cells for screen readers, also when they are laid out as
    # blocks.
    roles =
      "[...document.querySelectorAll('#absent, #absent tr, #absent td, #absent th')].every(n => n.getAttribute('role'))"

    assert Chromium.evaluate(browser, roles)

    assert Chromium.evaluate(browser, "document.getElementById('absent').getAttribute('aria-labelledby')") ==
             "h-unreachable"
  end

  defp opens_with_the_keyboard(browser) do
    Chromium.press(browser, "Tab")
    assert Chromium.evaluate(browser, "document.activeElement.textContent") == "Skip to the content"
    Chromium.press(browser, "Tab")
    assert Chromium.evaluate(browser, "document.activeElement.tagName") == "SUMMARY"
    Chromium.press(browser, "Enter")
    # The element stays open and keeps the focus when the page is updated.
    open = "document.querySelector('#ended > details').open && document.activeElement.tagName"
    assert Chromium.evaluate(browser, "poll().then(() => poll()).then(() => #{open})") == "SUMMARY"
  end

  # Nothing is wider than 400 pixels, each bar is beside its number, and every text has enough contrast.
  defp fits_a_phone(browser, dark?) do
    Chromium.look(browser, 400, 800, dark?)
    assert Chromium.evaluate(browser, "document.documentElement.scrollWidth") <= 400

    bars = """
    [...document.querySelectorAll("td.load")].filter(cell => !cell.querySelector("progress").hidden).map(cell => {
      const [bar, number] = [...cell.children].map(n => n.getBoundingClientRect());
      return [number.left - bar.right, cell.getBoundingClientRect().right - number.right];
    })
    """

    loads = Chromium.evaluate(browser, bars)
    assert loads != []
    for [between, right] <- loads, do: assert({between >= 0 and between < 16, right < 16} == {true, true})

    contrast = """
    (() => {
      const rgb = text => text.match(/[\\d.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
      const behind = node => {
        for (; node; node = node.parentElement) {
          const color = rgb(getComputedStyle(node).backgroundColor);
          if (color.length === 3 || color[3] > 0) return color;
        }
        return rgb(getComputedStyle(document.body).backgroundColor);
      };
      const ratio = node => {
        const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      };
      const texts = [...document.querySelectorAll("body *")].filter(n => [...n.childNodes].some(c => c.nodeType === 3 && c.data.trim()))
        .filter(n => !["SCRIPT", "NOSCRIPT"].includes(n.tagName) && n.offsetParent);
      return { texts: texts.length, least: Math.min(...texts.map(ratio)) };
    })()
    """

    assert %{"texts" => texts, "least" => least} = Chromium.evaluate(browser, contrast)
    assert texts > 20 and least >= 4.5
  end

  defp screenshots(browser, what) do
    folder = Path.join(System.tmp_dir!(), "durable_handoff_page")
    File.mkdir_p!(folder)

    backgrounds =
      for {theme, dark?} <- @themes, {name, width} <- [desktop: 1_100, phone: 400] do
        Chromium.look(browser, width, 900, dark?)
        path = Path.join(folder, "#{what}-#{name}-#{theme}.png")
        Chromium.screenshot(browser, path)
        IO.puts(path)
        Chromium.evaluate(browser, "getComputedStyle(document.body).backgroundColor")
      end

    assert length(Enum.uniq(backgrounds)) == 2
    Chromium.look(browser, 1_100, 900, false)
  end
end

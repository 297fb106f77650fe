defmodule HandoffBench.Codec.States do
  @moduledoc """
  The states that the codec is measured on, from a few fields to megabytes of text. They are the same in every run.
  """

  @sentences [
    "The order was confirmed this morning and should arrive before the weekend.",
    "Can we move the meeting to Thursday? I am travelling until then.",
    "Zoë hat das Café schon gebucht, wir müssen nur noch zusagen.",
    "C'est déjà fait : la réservation est au nom de François, à 20 h.",
    "会議は三時からです。資料は後で送ります。",
    "Собрание перенесли на пятницу, подробности пришлю позже.",
    "She said \"wait for the second build\", so I waited.",
    "Here is what I tried:\n\n  1. restart the worker\n  2. clear C:\\temp\\cache\n  3. run it again",
    "That worked 🎉 thank you, I will close the ticket now.",
    "If the total is above 100 the discount applies, otherwise it does not."
  ]

  @doc "The states by name, smallest first."
  @spec all(:strings | :atoms) :: [{String.t(), term()}]
  def all(keys) do
    :rand.seed(:exsss, {20, 26, 1})

    for {name, state} <- [
          {"300 B", profile()},
          {"2 KB", cart()},
          {"50 KB", chat(110)},
          {"1 MB", chat(2_300)},
          {"5 MB strings", documents()},
          {"numbers", numbers()}
        ],
        do: {name, if(keys == :atoms, do: with_atoms(state), else: state)}
  end

  defp profile do
    %{
      "name" => "Zoë Müller",
      "email" => "zoe.mueller@example.org",
      "visits" => 4711,
      "balance" => 102.75,
      "active" => true,
      "nickname" => nil,
      "roles" => ["admin", "editor"],
      "address" => %{"street" => "12 Analytical Row", "city" => "London", "zip" => "W1"},
      "updated_at" => "2026-01-02T03:04:05.678901Z"
    }
  end

  defp cart do
    items =
      for index <- 1..14 do
        %{
          "id" => 7_919 * index,
          "title" => "Item number #{index}",
          "price" => Float.round(index * 3.35, 2),
          "quantity" => rem(index, 3) + 1,
          "gift" => rem(index, 5) == 0,
          "note" => if(rem(index, 2) == 0, do: "leave it at the door", else: nil)
        }
      end

    Map.put(profile(), "items", items)
  end

  defp chat(messages) do
    %{
      "room" => "support/eu-west/#{messages}",
      "members" => for(index <- 1..20, do: "user_#{index}"),
      "messages" =>
        for index <- 1..messages do
          %{
            "id" => 1_767_322_000_000 + index * 37,
            "from" => "user_#{:rand.uniform(20)}",
            "text" => text(40 + :rand.uniform(600)),
            "at" => "2026-01-02T03:04:05.678901Z",
            "likes" => :rand.uniform(9) - 1,
            "edited" => :rand.uniform(10) == 1
          }
        end
    }
  end

  defp documents do
    %{"documents" => for(index <- 1..12, do: %{"title" => "Document #{index}", "body" => text(425_000)})}
  end

  defp numbers do
    %{
      "measured" => for(_ <- 1..6_000, do: :rand.uniform() * 1_000),
      "prices" => for(_ <- 1..10_000, do: Float.round(:rand.uniform() * 1_000, 2)),
      "counts" => for(_ <- 1..14_000, do: :rand.uniform(1_000_000))
    }
  end

  defp text(size), do: text(size, [])
  defp text(size, sentences) when size <= 0, do: Enum.join(sentences, " ")

  defp text(size, sentences) do
    sentence = Enum.random(@sentences)
    text(size - byte_size(sentence) - 1, [sentence | sentences])
  end

  defp with_atoms(%{} = map), do: Map.new(map, fn {key, value} -> {String.to_atom(key), with_atoms(value)} end)
  defp with_atoms(list) when is_list(list), do: Enum.map(list, &with_atoms/1)
  defp with_atoms(other), do: other
end

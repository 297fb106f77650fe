defprotocol DurableHandoff.Codec.Encodable do
  @moduledoc """
  What the JSON of a struct is, on Elixir before 1.18.

  From 1.18 on this is what `JSON.Encoder` says, and nothing asks here. Before, states may contain structs of the application
  only when they implement this protocol, which has the same function:

      defimpl DurableHandoff.Codec.Encodable, for: MyApp.Money do
        def encode(money, encoder), do: encoder.(%{amount: money.amount, currency: money.currency}, encoder)
      end

  The structs of the calendar have one.
  """

  @doc "The JSON of `term`; `encoder` gives that of its parts when called with the part and with itself."
  @spec encode(t, encoder) :: iodata() when encoder: (term(), encoder -> iodata())
  def encode(term, encoder)
end

for module <- [Date, Time, NaiveDateTime, DateTime, Duration], Code.ensure_loaded?(module) do
  defimpl DurableHandoff.Codec.Encodable, for: module do
    def encode(value, _encoder), do: [?", @for.to_iso8601(value), ?"]
  end
end

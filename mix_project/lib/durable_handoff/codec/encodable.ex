defprotocol DurableHandoff.Codec.Encodable do
  @moduledoc """
  Defines the JSON of a struct on Elixir before 1.18.

  From Elixir 1.18 on, `JSON.Encoder` does this and this protocol is not used. On older versions a state may
  contain a struct of the application only if the struct implements this protocol, which has the same
  function:

      defimpl DurableHandoff.Codec.Encodable, for: MyApp.Money do
        def encode(money, encoder), do: encoder.(%{amount: money.amount, currency: money.currency}, encoder)
      end

  The calendar structs (`Date`, `DateTime` and so on) implement it.
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

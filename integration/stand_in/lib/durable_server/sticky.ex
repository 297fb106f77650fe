defmodule DurableServer.Sticky do
  @moduledoc """
  Sticky placement: a server prefers the place where it last ran, and other places become available with time.

  A module's configuration is `[ENV_VAR: delay_ms, ..., any: delay_ms]`. A server's *levels* are the values those
  variables had where it was started: `[%{env_var: "ENV_VAR", value: "x"}, ..., %{env_var: :any, value: :any}]`.
  """

  @type levels :: [%{env_var: String.t() | :any, value: term()}]
  @type delays :: keyword(non_neg_integer()) | nil

  @doc "The levels of a server that starts on this node; nil when its module is not sticky."
  @spec levels(delays()) :: levels() | nil
  def levels(nil), do: nil

  def levels(delays) do
    for {variable, _delay} <- delays do
      case variable do
        :any -> %{env_var: :any, value: :any}
        name -> %{env_var: Atom.to_string(name), value: System.get_env(Atom.to_string(name))}
      end
    end
  end

  @doc "This node's values of every variable that any module is sticky to; nil when there is none."
  @spec env_vars(%{module() => delays()}) :: %{String.t() => String.t() | nil} | nil
  def env_vars(configured) do
    names =
      for {_module, delays} <- configured, {variable, _delay} <- delays, variable != :any, do: Atom.to_string(variable)

    if names == [], do: nil, else: Map.new(names, &{&1, System.get_env(&1)})
  end

  @doc """
  The open level at which a place with `env_vars` matches: its index, or nil.

  A level is open when the delays of all levels before it have passed since the server last ran.

      iex> levels = [%{env_var: "REGION", value: "ord"}, %{env_var: :any, value: :any}]
      iex> DurableServer.Sticky.open_level(levels, %{"REGION" => "ord"}, [REGION: 5_000, any: 0], 0)
      0
      iex> DurableServer.Sticky.open_level(levels, %{"REGION" => "ams"}, [REGION: 5_000, any: 0], 4_999)
      nil
      iex> DurableServer.Sticky.open_level(levels, %{"REGION" => "ams"}, [REGION: 5_000, any: 0], 5_000)
      1
  """
  @spec open_level(levels(), map() | nil, delays(), non_neg_integer()) :: non_neg_integer() | nil
  def open_level(levels, env_vars, delays, elapsed_ms) do
    with index when is_integer(index) <- level(levels, env_vars) do
      wait = levels |> Enum.take(index) |> Enum.map(&delay(&1, delays || [])) |> Enum.sum()
      if wait <= elapsed_ms, do: index
    end
  end

  @doc "The level at which a place matches, open or not: its index, or nil."
  @spec level(levels(), map() | nil) :: non_neg_integer() | nil
  def level(levels, env_vars), do: Enum.find_index(levels, &matches?(&1, env_vars || %{}))

  defp matches?(%{env_var: :any}, _env_vars), do: true
  defp matches?(%{env_var: name, value: value}, env_vars), do: Map.get(env_vars, name) == value

  defp delay(%{env_var: name}, delays) do
    Enum.find_value(delays, 0, fn {variable, delay} -> if Atom.to_string(variable) == to_string(name), do: delay end)
  end
end

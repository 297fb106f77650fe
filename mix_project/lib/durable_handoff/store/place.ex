defmodule DurableHandoff.Store.Place do
  @moduledoc false
  # Where a store really is: the same on every node that uses it, with no secret in it.
  #
  # The bucket alone does not say it: two services, or two accounts, may each have one of that name. Which of
  # them is meant may stand in the configuration or in the environment, under more than one name.

  alias DurableHandoff.Host.StorageIdentity

  @endpoints ~w(endpoint endpoint_url endpoint_url_s3 base_url)
  @accounts ~w(account_name storage_account_name)
  @regions ~w(region default_region)
  @prefixes %{"s3" => "aws", "gs" => "google", "az" => "azure"}

  @spec of(url :: String.t(), config :: [{String.t(), String.t()}]) :: term()
  def of("memory:" <> _name = url, _config), do: {url, node()}

  def of(url, config) do
    provider = @prefixes[hd(String.split(url, ":"))]
    given = Map.new(config, fn {name, value} -> {String.downcase(name), value} end)
    endpoint = provider && find(given, provider, @endpoints)
    account = provider && find(given, provider, @accounts)
    # An endpoint names the service; without one the region does.
    region = if provider == "aws" and endpoint == nil, do: find(given, provider, @regions)
    {StorageIdentity.url(url), StorageIdentity.url(endpoint), account, region}
  end

  defp find(given, provider, names) do
    Enum.find_value(names, &(given[&1] || given["#{provider}_#{&1}"] || given["#{provider}_storage_#{&1}"])) ||
      Enum.find_value(names, &environment("#{provider}_#{&1}"))
  end

  defp environment(name) do
    case System.get_env(String.upcase(name)) do
      "" -> nil
      value -> value
    end
  end
end

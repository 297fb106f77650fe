defmodule DurableHandoff.Store.Place do
  @moduledoc false
  # Identifies a store: the same on every node that uses it, without secrets.
  #
  # The bucket's name is not enough: two services or accounts may each have such a bucket. Service and account
  # are in the configuration or in the environment, under several names.

  alias DurableHandoff.Host.StorageIdentity

  # In the order of preference of the Rust crate object_store.
  @endpoints ~w(endpoint_url_s3 endpoint endpoint_url base_url)
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

defmodule Store.MemoryTest do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Places, :memory, []}
end

defmodule Store.DirectoryTest do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Places, :directory, []}
end

defmodule Store.S3Test do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Servers, :options, [:s3]}
  use Store.ServerConformance, kind: :s3
end

defmodule Store.MinistackTest do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Servers, :options, [:ministack]}
  use Store.ServerConformance, kind: :ministack
end

defmodule Store.AzureTest do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Servers, :options, [:azure]}
  use Store.ServerConformance, kind: :azure
end

defmodule Store.GoogleTest do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Servers, :options, [:google]}
  use Store.ServerConformance, kind: :google
end

defmodule Store.SimulatedTest do
  use ExUnit.Case, async: true
  use Store.Conformance, backend: SimulatedStore, options: {Store.Places, :simulated, []}
end

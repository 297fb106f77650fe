defmodule DurableHandoff.Native.Library do
  @moduledoc false
  # `use DurableHandoff.Native.Library, "handoff_nif"`: loads priv/native/handoff_nif into a module of stubs.
  #
  # It injects code because :erlang.load_nif/2 loads a library into the module that calls it, and because an
  # @on_load function can run before any other module of the application is loaded.
  #
  # A library that is missing or does not load does not keep an application from booting: the code is accepted,
  # and its stubs raise DurableHandoff.NativeError. A library of another version, such as an old copy in
  # DURABLE_HANDOFF_NIF, does not load: it compares the version that it is given with its own.
  #
  # The VM cannot load the library into a second version of the module. So that version is refused: the VM
  # keeps the working code and logs a warning. Otherwise :code.load_file/1 or a relup would replace working
  # code with stubs. A module of stubs has no anonymous functions: after a refused reload they are those of the code
  # that was refused, and the VM crashes when one is called (OTP 25).

  alias DurableHandoff.NativeError

  @doc "What `load_library/0` has recorded, as the answer of `check/0`."
  @spec check({Path.t(), :ok | :not_loaded | {:error, term()}}) :: :ok | {:error, Exception.t()}
  def check({_path, :ok}), do: :ok
  def check({path, {:error, reason}}), do: {:error, NativeError.exception(path: path, reason: reason)}
  def check({path, :not_loaded}), do: {:error, NativeError.exception(path: path, reason: :not_loaded)}

  @doc "The exception of a stub that is called, from the answer of `check/0`."
  @spec missing(Path.t(), :ok | {:error, Exception.t()}) :: Exception.t()
  def missing(path, :ok), do: NativeError.exception(path: path, reason: :incomplete)
  def missing(_path, {:error, error}), do: error

  @doc """
  Returns what `call`, which calls the library, returns. The VM puts the arguments of a library's function into
  the stack trace when it refuses them, as one of another version does: here options with secrets, and states.
  An exception that `call` raises has a stack trace without arguments.
  """
  @spec without_arguments((() -> result)) :: result when result: term()
  def without_arguments(call) do
    call.()
  rescue
    error -> reraise error, Enum.map(__STACKTRACE__, &without_arguments_of/1)
  end

  defp without_arguments_of({module, function, arguments, location}) when is_list(arguments),
    do: {module, function, length(arguments), location}

  defp without_arguments_of(entry), do: entry

  defmacro __using__(name) do
    quote do
      @doc "`:ok`, or the exception that says why the library is not loaded and what to do."
      @spec check() :: :ok | {:error, Exception.t()}
      def check, do: DurableHandoff.Native.Library.check(:persistent_term.get(__MODULE__, {path(), :not_loaded}))

      defp load_library do
        path = path()
        # `:reload`: another process has loaded the library and may not have recorded that yet.
        loaded = :erlang.load_nif(String.to_charlist(path), unquote(Mix.Project.config()[:version]))
        result = with {:error, {:reload, _text}} <- loaded, do: :ok
        :persistent_term.put(__MODULE__, {path, result})
      end

      # For @on_load: returns :ok, or an error that makes the VM refuse new code. While @on_load runs,
      # module_loaded/1 refers to the code that would be replaced.
      defp accept_code do
        if match?({_path, :ok}, :persistent_term.get(__MODULE__, nil)) and :erlang.module_loaded(__MODULE__),
          do: {:error, "the running code has #{path()}, which new code cannot get before the VM restarts"},
          else: :ok
      end

      # Raises as `raise` would, and tells compilers and type checkers that this body is replaced at run time.
      defp missing, do: :erlang.nif_error(DurableHandoff.Native.Library.missing(path(), check()))

      # In a script with -pa there is no application: priv is beside the folder of the compiled modules.
      defp path do
        priv =
          case {:code.priv_dir(:durable_handoff), :code.which(__MODULE__)} do
            {priv, _beam} when is_list(priv) -> List.to_string(priv)
            {_none, beam} when is_list(beam) -> Path.expand("../../priv", beam)
            {_none, _unknown} -> Path.expand("priv")
          end

        Path.join([priv, "native", unquote(name)])
      end
    end
  end
end

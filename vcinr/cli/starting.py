"""Starting JAX for one command: all cores as devices, compiled programs kept between runs."""

from __future__ import annotations

import os
import tempfile


def start_jax() -> None:
    """Cores become devices, and the compilation cache is set; before JAX computes anything."""
    from vcinr.devices import use_cpu_cores

    use_cpu_cores()
    _use_compilation_cache()


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that the second start is fast; VCINR_CACHE moves it, empty switches it off."""
    chosen = os.environ.get("VCINR_CACHE")
    if chosen == "":
        return
    folder = chosen or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vcinr", "jax")
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if chosen is None:
            return  # A home that cannot be written to costs the cache, not the command.
        raise ValueError(f"VCINR_CACHE={chosen} cannot be written to ({error.strerror}); empty switches the cache off") from error
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

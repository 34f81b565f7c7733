"""The control queue: commands, their signatures and admission, and the handler that carries them out."""

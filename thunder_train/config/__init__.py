"""thunder.toml and recipes: every key, its rules, and the project read from them."""

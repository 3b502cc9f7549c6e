"""What the registry says to people; in Vietnamese it stands in `vi.toml` beside this."""

from libs.common.words import Speaker

say = Speaker("services.registry")

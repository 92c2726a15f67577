"""The templates of questions, one module per modality; `TEMPLATES` holds them in order."""

from earnest.world.templates import music, sound, speech
from earnest.world.templates.drafts import TEMPLATES as _REGISTERED
from earnest.world.templates.drafts import Template

TEMPLATES: dict[str, Template] = {
    name: template
    for modality in ("sound", "music", "speech")
    for name, template in _REGISTERED.items()
    if template.modality == modality
}
"""All templates by name. The order is part of what pocket was trained with: its tokenizer reads it."""

__all__ = ["TEMPLATES", "music", "sound", "speech"]

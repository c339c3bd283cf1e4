"""Chat templates: how a version's own differs from its base's."""

from __future__ import annotations

from registry.client.transport import SLOW, Transport, ref_path
from registry.views.chat_templates import ChatTemplateView


class ChatTemplates(Transport):
    """The chat templates of versions."""

    def chat_template(self, ref: str) -> ChatTemplateView:
        """Compare a version's chat template with its base's, also on sample conversations."""
        return self._get(f"/chat-templates/{ref_path(ref)}", ChatTemplateView, timeout=SLOW)

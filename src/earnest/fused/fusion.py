"""From several adapted streams to soft tokens of the LLM.

CA and P are the two fusions of arXiv 2603.09556; the align head is AlignVLM's (arXiv 2502.01341).
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization

from earnest.errors import ModelError
from earnest.fused.adapters import Adapter, LayerMix
from earnest.fused.configuration import EncoderSpec, FusionConfig, PassConfig, TokenBudget
from earnest.fused.encoders import ceil_div, frame_mask

Stream = tuple[Tensor, Tensor]
"""Tokens [N, T, C] and their real lengths [N]."""


class Fusion(Protocol):
    """Several streams in, one out; `width` is the channels of what comes out."""

    width: int

    def __call__(self, streams: list[Stream]) -> Stream:
        """Fuse; the first stream leads."""
        ...


class ConcatFusion(nn.Module):
    """Channels side by side; all streams have one rate and hence one length."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.width = sum(widths)

    def forward(self, streams: list[Stream]) -> Stream:
        """[N, T, C_k] each -> [N, T, sum of C_k]."""
        return torch.cat([tokens for tokens, _ in streams], dim=-1), streams[0][1]


class CrossAttentionFusion(nn.Module):
    """The leading stream asks each other one in turn through pre-norm decoder layers (fusion CA).

    Each memory has its own padding mask, made of its own lengths.
    """

    def __init__(self, config: FusionConfig, widths: list[int], width: int) -> None:
        super().__init__()
        self.width = width
        self.project_in = nn.ModuleList([nn.Linear(w, config.width) for w in widths])
        self.layers = nn.ModuleList(
            [
                nn.TransformerDecoderLayer(
                    config.width,
                    config.heads,
                    config.ffn,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range((len(widths) - 1) * config.layers)
            ]
        )
        self.layers_each = config.layers
        self.project_out = nn.Linear(config.width, width)

    def forward(self, streams: list[Stream]) -> Stream:
        """[N, T_k, C_k] each -> [N, T_0, D]."""
        projected = [project(tokens) for project, (tokens, _) in zip(self.project_in, streams, strict=True)]
        absent = [~frame_mask(lengths, tokens.shape[1]) for tokens, lengths in streams]
        lead = projected[0]
        for index, layer in enumerate(self.layers):
            other = 1 + index // self.layers_each
            lead = layer(
                lead,
                projected[other],
                tgt_key_padding_mask=absent[0],
                memory_key_padding_mask=absent[other],
            )
        return self.project_out(lead), streams[0][1]


class PerceiverLayer(nn.Module):
    """Latents attend to the frames and to themselves, then a feed-forward; pre-norm."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm_latents = nn.LayerNorm(config.width)
        self.norm_frames = nn.LayerNorm(config.width)
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.norm_ffn = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.ffn)
        self.down = nn.Linear(config.ffn, config.width)

    def forward(self, latents: Tensor, frames: Tensor, absent: Tensor) -> Tensor:
        """Latents [N, K, W], frames [N, T, W], absent [N, T] bool -> latents [N, K, W]."""
        query = self.norm_latents(latents)
        memory = torch.cat([self.norm_frames(frames), query], dim=1)
        mask = torch.cat([absent, absent.new_zeros(query.shape[:2])], dim=1)
        latents = latents + self.attention(query, memory, memory, key_padding_mask=mask, need_weights=False)[0]
        return latents + self.down(functional.gelu(self.up(self.norm_ffn(latents))))


class PerceiverFusion(nn.Module):
    """The leading stream as is, then a mark, the latents of each other stream, and a mark (fusion P).

    The projections in and out are shared: the adapters have brought all streams into one space already.
    """

    def __init__(self, config: FusionConfig, widths: list[int]) -> None:
        super().__init__()
        if len(set(widths)) > 1:
            raise ModelError(f"perceiver fusion needs adapters of one output width, got {widths}")
        self.width = widths[0]
        self.project_in = nn.Linear(self.width, config.width)
        self.project_out = nn.Linear(config.width, self.width)
        others = len(widths) - 1
        self.latents = nn.Parameter(torch.empty(others, config.latents, config.width))
        self.layers = nn.ModuleList(
            [nn.ModuleList([PerceiverLayer(config) for _ in range(config.layers)]) for _ in range(others)]
        )
        self.marks = nn.Parameter(torch.empty(2, self.width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Latents and marks; the layers have their own."""
        nn.init.normal_(self.latents, std=0.02)
        nn.init.normal_(self.marks, std=0.02)

    def forward(self, streams: list[Stream]) -> Stream:
        """[N, T_k, D] each -> [N, T_0 + K (k - 1) + 2, D]: the latents follow each item's own last token."""
        lead, lengths = streams[0]
        items = lead.shape[0]
        parts = [self.marks[:1].expand(items, -1, -1)]
        for index, (tokens, own) in enumerate(streams[1:]):
            frames = self.project_in(tokens)
            absent = ~frame_mask(own, tokens.shape[1])
            latents = self.latents[index].expand(items, -1, -1)
            for layer in cast(nn.ModuleList, self.layers[index]):
                latents = layer(latents, frames, absent)
            parts.append(self.project_out(latents))
        parts.append(self.marks[1:].expand(items, -1, -1))
        tail = torch.cat(parts, dim=1)
        rows = [torch.cat([row[:n], end]) for row, n, end in zip(lead, lengths.tolist(), tail, strict=True)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths + tail.shape[1]


class _ScaledNorm(nn.LayerNorm):
    """A LayerNorm whose gain starts at the scale of the LLM's embeddings."""

    embedding_std = 1.0

    def reset_parameters(self) -> None:
        """Start at the scale of the embeddings."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.embedding_std)


class _BlankLinear(nn.Linear):
    """A Linear to the vocabulary that starts near uniform, but for one token."""

    blank_token_id: int | None = None
    blank_bias = 0.0

    def reset_parameters(self) -> None:
        """Near uniform, but for the blank."""
        nn.init.normal_(self.weight, std=0.02)
        bias = torch.zeros_like(self.bias)
        if self.blank_token_id is not None:
            bias[self.blank_token_id] = self.blank_bias
        initialization.copy_(self.bias, bias)


class LinearHead(nn.Module):
    """Linear, then a LayerNorm whose gain starts at the standard deviation of the LLM's embeddings."""

    def __init__(self, width_in: int, width: int, embedding_std: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width)
        self.norm = _ScaledNorm(width)
        self.set_embedding_std(embedding_std)

    def set_embedding_std(self, std: float) -> None:
        """Start at another scale."""
        self.norm.embedding_std = std
        self.norm.reset_parameters()

    def forward(self, tokens: Tensor, embeddings: Tensor) -> Tensor:
        """[N, T, C] -> [N, T, D]."""
        return self.norm(self.linear(tokens))


class AlignHead(nn.Module):
    """A softmax over the LLM's vocabulary times its frozen embeddings (arXiv 2502.01341).

    So a soft token is a mixture of words that the LLM knows. At the start it leans to the blank.
    """

    def __init__(self, width_in: int, vocabulary: int, blank_token_id: int | None, blank_bias: float) -> None:
        super().__init__()
        self.linear = _BlankLinear(width_in, vocabulary)
        self.linear.blank_token_id = blank_token_id
        self.linear.blank_bias = blank_bias
        self.linear.reset_parameters()

    def forward(self, tokens: Tensor, embeddings: Tensor) -> Tensor:
        """[N, T, C], embeddings [V, D] -> [N, T, D]."""
        return self.linear(tokens).softmax(-1) @ embeddings.to(tokens.dtype)


class PlainHead(nn.Module):
    """The fused stream as it is: its last Linear has made it as wide as the LLM."""

    def forward(self, tokens: Tensor, embeddings: Tensor) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        return tokens


class AudioPass(nn.Module):
    """Everything that is trained for one pass: layer mixes, adapters, fusion, head and boundary vectors."""

    def __init__(
        self,
        config: PassConfig,
        encoders: list[EncoderSpec],
        budget: TokenBudget,
        width: int,
        vocabulary: int,
        embedding_std: float,
    ) -> None:
        super().__init__()
        specs = {spec.name: spec for spec in encoders}
        self.encoders = list(config.adapters)
        self.samples_per_frame = {n: specs[n].geometry.samples_per_frame for n in self.encoders}
        self.chunk_samples = budget.chunk_samples
        self.mixes = nn.ModuleDict({n: LayerMix(len(specs[n].layers)) for n in self.encoders})
        self.adapters = nn.ModuleDict(
            {n: Adapter(adapter, specs[n].geometry.width) for n, adapter in config.adapters.items()}
        )
        widths = [adapter.width for adapter in config.adapters.values()]
        self.fusion = cast(nn.Module, _build_fusion(config.fusion, widths, width))
        fused_width = cast(Fusion, self.fusion).width
        if config.head == "linear":
            self.head = LinearHead(fused_width, width, embedding_std)
        elif config.head == "align":
            self.head = AlignHead(fused_width, vocabulary, config.blank_token_id, config.blank_bias)
        elif fused_width == width:
            self.head = PlainHead()
        else:
            raise ModelError(f"head 'none' needs a fused stream of width {width}, got {fused_width}")
        self.boundary = nn.Parameter(torch.empty(2, width)) if config.boundary else None
        self.embedding_std = embedding_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The boundary vectors; the parts have their own."""
        if self.boundary is not None:
            nn.init.normal_(self.boundary, std=self.embedding_std)

    def set_embedding_std(self, std: float) -> None:
        """Start head and boundary at the scale of an LLM that was trained elsewhere."""
        self.embedding_std = std
        self.reset_parameters()
        if isinstance(self.head, LinearHead):
            self.head.set_embedding_std(std)

    def forward(self, hidden: dict[str, Tensor], lengths: Tensor, embeddings: Tensor) -> list[Tensor]:
        """Soft tokens of whole clips.

        Args:
            hidden: by encoder, [N, F, L * C].
            lengths: [N] samples of each clip at 16 kHz.
            embeddings: [V, D] of the LLM.

        Returns:
            N tensors [n, D]; n is the pass's `TokenBudget` of the clip's samples.
        """
        clips, pieces = self._pieces(lengths)
        streams: list[Stream] = []
        for name in self.encoders:
            per_frame = self.samples_per_frame[name]
            frames = hidden[name]
            if self.chunk_samples is not None:
                frames = _split(frames, clips, self.chunk_samples // per_frame)
            frames = self.mixes[name](frames)
            streams.append(self.adapters[name](frames, ceil_div(pieces, per_frame)))
        tokens, counts = self.fusion(streams)
        tokens = self.head(tokens, embeddings)
        rows: list[list[Tensor]] = [[] for _ in range(lengths.numel())]
        for clip, row, count in zip(clips, tokens, counts.tolist(), strict=True):
            rows[clip].append(row[:count])
        if self.boundary is not None:
            rows = [[self.boundary[:1], *row, self.boundary[1:]] for row in rows]
        return [torch.cat(row) for row in rows]

    def _pieces(self, lengths: Tensor) -> tuple[list[int], Tensor]:
        """The chunks that are adapted on their own: the clip of each, and its samples [P]."""
        if self.chunk_samples is None:
            return list(range(lengths.numel())), lengths
        clips: list[int] = []
        pieces: list[int] = []
        for clip, samples in enumerate(lengths.tolist()):
            for start in range(0, samples, self.chunk_samples):
                clips.append(clip)
                pieces.append(min(self.chunk_samples, samples - start))
        return clips, torch.tensor(pieces, device=lengths.device)


def _split(frames: Tensor, clips: list[int], chunk: int) -> Tensor:
    """[N, F, C] -> [P, chunk, C]: the chunks of each clip as rows, in the order of `clips`."""
    chunks = functional.pad(frames, (0, 0, 0, -frames.shape[1] % chunk)).unflatten(1, (-1, chunk))
    order = [row - clips.index(clip) for row, clip in enumerate(clips)]  # a clip's k-th row is its k-th chunk
    return chunks[clips, order]


def _build_fusion(config: FusionConfig, widths: list[int], width: int) -> Fusion:
    if config.kind == "concat":
        return ConcatFusion(widths)
    if config.kind == "ca":
        return CrossAttentionFusion(config, widths, width)
    return PerceiverFusion(config, widths)

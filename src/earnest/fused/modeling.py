"""The fused model: a frozen causal LM, frozen encoders, and trained passes between them.

Hearing has two halves. `encode` is frozen and may be cached; `adapt` is trained. `encode_audio` does both.
Without audio every call goes straight to the LLM: its text ability stays bit for bit (arXiv 2603.09556).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from earnest.errors import AudioError, ModelError
from earnest.fused.configuration import EncoderSpec, FusedConfig
from earnest.fused.encoders import KINDS, Samples, encode_features, extract_features
from earnest.fused.fusion import AudioPass, LayerMix, PerceiverFusion


class FusedModel(PreTrainedModel, GenerationMixin):
    """An LLM with ears. See `FusedConfig` for its parts."""

    config_class = FusedConfig
    config: FusedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: FusedConfig) -> None:
        super().__init__(config)
        # The dtype of the loading call wins over the one that the parts' configs were saved with.
        self.language_model = cast(
            PreTrainedModel,
            AutoModelForCausalLM.from_config(config.text_config, dtype=torch.get_default_dtype()),
        )
        self.encoder_specs = config.encoder_specs
        self.encoders = nn.ModuleDict({s.name: KINDS[s.model_type].build(s) for s in self.encoder_specs})
        self.passes = _build_passes(config)
        self.post_init()
        self._freeze()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """transformers' from_pretrained; it makes new parameters, so they are frozen once more."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._freeze()
        return loaded

    @classmethod
    def from_parts(
        cls,
        language_model: PreTrainedModel,
        encoders: Mapping[str, PreTrainedModel],
        passes: Mapping[str, Any],
        audio_token_id: int,
        layers: Mapping[str, Sequence[int]] | None = None,
        features: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> FusedModel:
        """A model of trained parts, with new passes that start at the scale of the LLM's embeddings.

        Args:
            language_model: any causal LM; it and the encoders are taken as they are, not copied, and frozen.
            encoders: by name, of the known architectures.
            passes: `PassConfig`s, or dicts of them.
            audio_token_id: the placeholder of one soft token.
            layers: kept hidden layers by encoder; the last one where not given.
            features: settings of the feature extractors by encoder, where they differ from the default.
        """
        kept, heard_by = layers or {}, features or {}
        config = FusedConfig(
            text_config=language_model.config,
            encoders=[
                {
                    "name": name,
                    "config": encoder.config.to_dict(),
                    "layers": tuple(kept.get(name, (-1,))),
                    "feature": dict(heard_by[name]) if heard_by.get(name) else None,
                }
                for name, encoder in encoders.items()
            ],
            passes={n: p if isinstance(p, dict) else p.to_dict() for n, p in passes.items()},
            audio_token_id=audio_token_id,
        )
        with torch.device("meta"):
            model = cls(config)
        model.language_model = language_model
        model.encoders = nn.ModuleDict(dict(encoders))
        model.passes = _build_passes(config)
        embeddings = cast(nn.Embedding, language_model.get_input_embeddings()).weight
        for audio_pass in model.passes.values():
            cast(AudioPass, audio_pass).set_embedding_std(float(embeddings.detach().float().std()))
        model.generation_config = language_model.generation_config
        model._freeze()
        return model.eval()

    def _freeze(self) -> None:
        self.language_model.requires_grad_(False)
        self.encoders.requires_grad_(False)
        self.encoders.eval()

    def _init_weights(self, module: nn.Module) -> None:
        # transformers asks only for modules that hold parameters themselves.
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.LayerNorm, LayerMix, PerceiverFusion, AudioPass)):
            module.reset_parameters()
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_uniform_(module.in_proj_weight)
            nn.init.zeros_(module.in_proj_bias)

    def train(self, mode: bool = True) -> FusedModel:
        """Training mode for all but the encoders: dropout in them would make cached features lie."""
        super().train(mode)
        self.encoders.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The LLM's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """The LLM's."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The LLM's head."""
        return self.language_model.get_output_embeddings()

    def trainable_parameters(self, pass_name: str) -> Iterator[nn.Parameter]:
        """What training a pass changes: its layer mixes, adapters, fusion, head and boundary vectors."""
        return self._pass(pass_name).parameters()

    def _pass(self, name: str) -> AudioPass:
        if name not in self.passes:
            raise ModelError(f"the model has no pass {name!r}; it has {', '.join(self.passes) or 'none'}")
        return cast(AudioPass, self.passes[name])

    # Hearing

    def features(self, samples: Sequence[Samples], pass_name: str | None = None) -> tuple[list[Tensor | None], Tensor]:
        """What the encoders take, of clips at 16 kHz.

        Args:
            samples: N arrays [S] float32.
            pass_name: None for all encoders; else those that the pass does not use are left out.

        Returns:
            One tensor per encoder, None where left out, with a row for each chunk of each clip; lengths [N] in
            samples.

        Raises:
            AudioError: a clip that is empty or not one-dimensional.
        """
        for index, clip in enumerate(samples):
            if clip.ndim != 1 or clip.size == 0:
                raise AudioError(f"clip {index} has shape {clip.shape}; mono samples [S] with S >= 1 are needed")
        used = self._used(pass_name)
        features = [extract_features(s, samples) if s.name in used else None for s in self.encoder_specs]
        return features, torch.tensor([clip.size for clip in samples])

    def _used(self, pass_name: str | None) -> list[str]:
        if pass_name is None:
            return [spec.name for spec in self.encoder_specs]
        return self._pass(pass_name).encoders

    @torch.no_grad()
    def encode(self, features: Sequence[Tensor | None], lengths: Tensor) -> list[Tensor | None]:
        """Frozen hidden frames, one tensor [N, F, L * C] per encoder: the kept layers side by side.

        Args:
            features: of `features`.
            lengths: [N] samples of each clip.
        """
        return [
            self._encode_one(spec, one, lengths) if one is not None else None
            for spec, one in zip(self.encoder_specs, features, strict=True)
        ]

    def _encode_one(self, spec: EncoderSpec, features: Tensor, lengths: Tensor) -> Tensor:
        module = cast(PreTrainedModel, self.encoders[spec.name])
        features = features.to(module.device, module.dtype)
        return encode_features(module, spec, features, lengths.to(module.device))

    def adapt(self, hidden: Sequence[Tensor | None], lengths: Tensor, pass_name: str) -> list[Tensor]:
        """Soft tokens of whole clips through one pass; this is what training changes.

        Args:
            hidden: of `encode`.
            lengths: [N] samples of each clip.
            pass_name: "first", "second" or "fine".

        Returns:
            N tensors [n, D]; n is `config.budget(pass_name).tokens(samples)`.
        """
        audio_pass = self._pass(pass_name)
        weight = next(audio_pass.parameters())
        by_name = {
            spec.name: one.to(weight.device, weight.dtype)
            for spec, one in zip(self.encoder_specs, hidden, strict=True)
            if one is not None
        }
        missing = [name for name in audio_pass.encoders if name not in by_name]
        if missing:
            raise ModelError(f"pass {pass_name!r} needs hidden frames of {', '.join(missing)}; encode them first")
        embeddings = cast(nn.Embedding, self.get_input_embeddings()).weight
        return audio_pass(by_name, lengths.to(weight.device), embeddings)

    def encode_audio(self, samples: Sequence[Samples], fine: Sequence[bool] | None = None) -> list[Tensor]:
        """Soft tokens of clips at 16 kHz, [n, D] each, in order.

        Args:
            samples: arrays [S] float32; long clips are chunked where an encoder or the pass asks for it.
            fine: which clips are re-listened segments; None for none.
        """
        flags = list(fine) if fine is not None else [False] * len(samples)
        tokens: dict[int, Tensor] = {}
        for flag in (False, True):
            indices = [index for index, value in enumerate(flags) if bool(value) is flag]
            if not indices:
                continue
            # The passes of an ensemble, one after the other; an encoder of both is run for each.
            adapted: list[list[Tensor]] = []
            for pass_name in self.config.passes_of(flag):
                features, lengths = self.features([samples[index] for index in indices], pass_name)
                adapted.append(self.adapt(self.encode(features, lengths), lengths, pass_name))
            tokens.update((index, torch.cat(own)) for index, *own in zip(indices, *adapted, strict=True))
        return [tokens[index] for index in range(len(samples))]

    # Answering

    def embed(self, input_ids: Tensor, audio: Sequence[Tensor]) -> Tensor:
        """The LLM's embeddings with soft tokens in place of the placeholders, in order.

        Args:
            input_ids: [B, T].
            audio: [n, D] of each clip, in reading order over the batch.

        Returns:
            [B, T, D].

        Raises:
            ModelError: other than one placeholder per soft token.
        """
        places = input_ids == self.config.audio_token_id
        given = sum(tokens.shape[0] for tokens in audio)
        wanted = int(places.sum())
        if given != wanted:
            raise ModelError(
                f"{wanted} audio placeholders for {given} soft tokens of {len(audio)} clips; "
                "let FusedProcessor build the input_ids"
            )
        # The placeholder's id may lie beyond an LLM's vocabulary: its own embedding is never used.
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        if not audio:
            return embeddings
        return embeddings.masked_scatter(places[:, :, None], torch.cat(list(audio)).to(embeddings))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        audio: Sequence[Tensor] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """The LLM's own forward; with `audio`, over embeddings that hold its soft tokens.

        Args:
            input_ids: [B, T], or inputs_embeds [B, T, D] of `embed`.
            attention_mask: [B, T] with the cached part.
            position_ids: [B, T].
            past_key_values: the LLM's cache.
            inputs_embeds: see input_ids.
            labels: [B, T], -100 where nothing is learned, as at every placeholder.
            audio: soft tokens [n, D] of each clip, in order.
            kwargs: to the LLM.
        """
        if audio is not None and input_ids is not None and inputs_embeds is None:
            input_ids, inputs_embeds = None, self.embed(input_ids, audio)
        # A single id is a decoding step: whatever was sampled goes on as text.
        elif input_ids is not None and input_ids.shape[1] > 1 and bool((input_ids == self.config.audio_token_id).any()):
            raise ModelError("input_ids hold audio placeholders but no audio was given; pass audio=encode_audio(...)")
        return self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            **kwargs,
        )

    @torch.no_grad()
    def generate(
        self,
        *args: Any,
        audio: Sequence[Any] | None = None,
        fine: Sequence[bool] | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' generate; what is returned begins with the prompt's ids.

        Args:
            args: to transformers; the first may be the input_ids [B, T].
            audio: each clip's samples [S] at 16 kHz, or its soft tokens [n, D], in reading order.
            fine: flags of clips that are given as samples.
            kwargs: to transformers, with input_ids [B, T].
        """
        if audio is not None:
            input_ids = args[0] if args else kwargs["input_ids"]
            if audio and not isinstance(audio[0], Tensor):
                audio = self.encode_audio(audio, fine)
            kwargs["inputs_embeds"] = self.embed(input_ids, audio)
        return cast(Any, super()).generate(*args, **kwargs)


def _build_passes(config: FusedConfig) -> nn.ModuleDict:
    text = cast(Any, config.get_text_config(decoder=True))
    return nn.ModuleDict(
        {
            name: AudioPass(
                spec,
                config.encoder_specs,
                config.budget(name),
                width=text.hidden_size,
                vocabulary=text.vocab_size,
                embedding_std=getattr(text, "initializer_range", 0.02),
            )
            for name, spec in config.pass_specs.items()
        }
    )

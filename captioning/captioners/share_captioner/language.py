"""InternLM-7B as a Llama, with beam sampling that gives an image the same caption in any batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from captioning.captioners.share_captioner.dimensions import Dimensions
from captioning.captioners.share_captioner.sampling import GumbelDice, draw_without_replacement

BOS, EOS = 1, 2


def language_config(dimensions: Dimensions) -> LlamaConfig:
    """InternLM-7B: Llama with a bias on query, key, value and output; loading sets its rotary frequencies."""
    return LlamaConfig(
        vocab_size=dimensions.vocab_size,
        hidden_size=dimensions.hidden_size,
        intermediate_size=dimensions.intermediate_size,
        num_hidden_layers=dimensions.num_layers,
        num_attention_heads=dimensions.num_heads,
        num_key_value_heads=dimensions.num_heads,
        hidden_act="silu",
        rms_norm_eps=dimensions.rms_norm_eps,
        attention_bias=True,
        mlp_bias=False,
        max_position_embeddings=dimensions.max_positions,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
        tie_word_embeddings=False,
    )


class InternLM(LlamaForCausalLM):
    """Llama whose `generate` draws beams from `dice`, one row of dice per picture, while `dice` is set. `generate`
    draws from torch's one shared generator, which would make a picture's caption depend on its batch."""

    dice: GumbelDice | None = None
    top_k = 50
    """Tokens per beam that may be drawn; as given to `generate`."""
    num_draws = 0
    """Number of draws so far, which shows that `generate` still draws by the method below."""

    def _get_top_k_continuations(
        self,
        accumulated_log_probs: Tensor,
        running_sequences: Tensor,
        running_beam_indices: Tensor,
        cur_len: int,
        decoder_prompt_len: int,
        do_sample: bool,
        beams_to_keep: int,
        num_beams: int,
        batch_size: int,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The draw inside `generate`: the K next tokens of each picture's beams, without replacement.
        `accumulated_log_probs` is (B, num_beams * V), minus infinity where a token may not come; `running_sequences`
        (B, num_beams, L); `running_beam_indices` (B, num_beams, L - prompt), the beam that each token was added to.
        Returns (B, K) log probabilities, likeliest first, and the K sequences and indices with the new token."""
        if self.dice is None:
            return super()._get_top_k_continuations(
                accumulated_log_probs,
                running_sequences,
                running_beam_indices,
                cur_len,
                decoder_prompt_len,
                do_sample,
                beams_to_keep,
                num_beams,
                batch_size,
                **kwargs,
            )
        self.num_draws += 1
        place = cur_len - decoder_prompt_len
        vocab_size = accumulated_log_probs.shape[1] // num_beams
        if place == 0:
            # The published run starts all beams alike and draws from each; `generate` today starts from one.
            accumulated_log_probs = accumulated_log_probs[:, :vocab_size].repeat(1, num_beams)
        # Top-k has left few of the tokens: only those are drawn from.
        num_possible = min(num_beams * self.top_k, accumulated_log_probs.shape[1])
        log_probs, choices = accumulated_log_probs.topk(num_possible, dim=1)
        drawn = draw_without_replacement(log_probs, choices, self.dice, place, beams_to_keep)
        log_probs, order = log_probs.gather(1, drawn).sort(dim=1, descending=True, stable=True)
        choices = choices.gather(1, drawn).gather(1, order)
        beams = choices // vocab_size  # (B, K)
        sequences, indices = (
            rows.gather(1, beams[..., None].expand(-1, -1, rows.shape[-1]))
            for rows in (running_sequences, running_beam_indices)
        )
        sequences[:, :, cur_len] = choices % vocab_size
        first_beams = torch.arange(batch_size, device=beams.device)[:, None] * num_beams
        indices[:, :, place] = (beams + first_beams).to(indices.dtype)
        return log_probs, sequences, indices

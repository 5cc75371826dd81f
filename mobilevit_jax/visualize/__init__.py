"""Seeing inside: attention maps, features, receptive fields, learning curves.

Functions that compute return numpy arrays; functions that plot return a
matplotlib `Figure`, to show in a notebook or to `savefig`.
"""

from mobilevit_jax.visualize.attention import attention_maps
from mobilevit_jax.visualize.attention import AttentionMaps
from mobilevit_jax.visualize.attention import context_scores
from mobilevit_jax.visualize.attention import ContextScores
from mobilevit_jax.visualize.curves import plot_curves
from mobilevit_jax.visualize.curves import plot_sizes
from mobilevit_jax.visualize.curves import read_metrics
from mobilevit_jax.visualize.features import centre_gradient
from mobilevit_jax.visualize.features import contributing_area
from mobilevit_jax.visualize.features import effective_receptive_field
from mobilevit_jax.visualize.features import feature_maps
from mobilevit_jax.visualize.features import without_attention
from mobilevit_jax.visualize.plots import plot_attention
from mobilevit_jax.visualize.plots import plot_boxes
from mobilevit_jax.visualize.plots import plot_classes
from mobilevit_jax.visualize.plots import plot_context
from mobilevit_jax.visualize.plots import plot_features
from mobilevit_jax.visualize.plots import plot_fields
from mobilevit_jax.visualize.plots import plot_images
from mobilevit_jax.visualize.plots import plot_taps

__all__ = [
  "AttentionMaps",
  "ContextScores",
  "attention_maps",
  "centre_gradient",
  "context_scores",
  "contributing_area",
  "effective_receptive_field",
  "feature_maps",
  "plot_attention",
  "plot_boxes",
  "plot_classes",
  "plot_context",
  "plot_curves",
  "plot_features",
  "plot_fields",
  "plot_images",
  "plot_sizes",
  "plot_taps",
  "read_metrics",
  "without_attention",
]

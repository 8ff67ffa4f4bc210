"""Folders of the Hugging Face hub: timm's models, and networks of transformers as timm's."""

"""Language models of Hugging Face transformers: the only room that imports torch and transformers."""

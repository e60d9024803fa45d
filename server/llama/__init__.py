"""What llama-server has beside the dialects: tokens and reranking."""

"""What a trained model computes on one text: where its heads look, what each layer would say."""

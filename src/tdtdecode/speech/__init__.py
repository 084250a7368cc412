"""From recordings to text: audio, features, the encoder, long recordings in windows, transcripts and their formats."""

"""From recordings to text: audio, features, encoder, windows over long recordings, transcripts and their formats."""

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func recorded(t *testing.T) (*Model, []float32) {
	t.Helper()
	model, err := Open("../recorded/demo.tdt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(model.Close)
	frames, err := readFrames("../recorded/encoder_output.f32")
	if err != nil {
		t.Fatal(err)
	}
	return model, frames
}

func lines(t *testing.T, model *Model, frames []float32, allow *Allow) string {
	t.Helper()
	words, err := model.Words(frames, allow)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, word := range words {
		fmt.Fprintf(&text, "%.2f %.2f %s\n", word.Start, word.End, word.Text)
	}
	return text.String()
}

// Closing it is left to the end of the test.
func allowed(t *testing.T) func(*Allow, error) *Allow {
	return func(allow *Allow, err error) *Allow {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(allow.Close)
		return allow
	}
}

func TestWordsAreThoseOfThePythonPackage(t *testing.T) {
	model, frames := recorded(t)
	expected, err := os.ReadFile("../recorded/words.txt")
	if err != nil {
		t.Fatal(err)
	}
	latin := allowed(t)(model.AllowScripts("latin", "common"))
	for _, allow := range []*Allow{nil, latin} {
		if found := lines(t, model, frames, allow); found != string(expected) {
			t.Errorf("expected\n%sfound\n%s", expected, found)
		}
	}
}

func TestTokensThatMayNotBeEmittedAreNot(t *testing.T) {
	model, frames := recorded(t)
	free := lines(t, model, frames, nil)
	all := make([]int32, 256) // of the demo model, whose blank is 256
	for token := range all {
		all[token] = int32(token)
	}
	if every := lines(t, model, frames, allowed(t)(model.AllowOnly(all))); every != free {
		t.Errorf("expected\n%sfound\n%s", free, every)
	}
	half := allowed(t)(model.AllowOnly(all[:128]))
	others := allowed(t)(model.AllowExcept(all[128:]))
	if lines(t, model, frames, half) != lines(t, model, frames, others) {
		t.Error("all tokens but the second half are not the first half")
	}
	if lines(t, model, frames, half) == free {
		t.Error("without half of the tokens the words are the same")
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	if _, err := Open("/nowhere/model.tdt"); err == nil || !strings.Contains(err.Error(), "/nowhere/model.tdt") {
		t.Error(err)
	}
	model, frames := recorded(t)
	if _, err := model.AllowScripts("klingon"); err == nil || !strings.Contains(err.Error(), "klingon") {
		t.Error(err)
	}
	if _, err := model.AllowOnly(nil); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Error(err)
	}
	if _, err := model.Words(frames[:3], nil); err == nil || !strings.Contains(err.Error(), "E = 128") {
		t.Error(err)
	}
}

// Prints the words of a recording with their times, from recorded encoder output.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
)

func readFrames(path string) ([]float32, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	frames := make([]float32, len(bytes)/4)
	for i := range frames {
		frames[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
	}
	return frames, nil
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: decode MODEL.tdt FRAMES.f32")
	}
	model, err := Open(arguments[0])
	if err != nil {
		return err
	}
	defer model.Close()
	frames, err := readFrames(arguments[1])
	if err != nil {
		return err
	}
	words, err := model.Words(frames, nil)
	if err != nil {
		return err
	}
	for _, word := range words {
		fmt.Printf("%.2f %.2f %s\n", word.Start, word.End, word.Text)
	}
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

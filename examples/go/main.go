// Prints the words of a recording with their times, from recorded encoder output.
package main

/*
#cgo LDFLAGS: -ltdtdecode
#include <stdlib.h>
#include <tdtdecode.h>

// Go passes no structures with pointers to Go's memory to C, so this function makes them in C.
static tdt_status decode(const tdt_model* model, const float* frames, int32_t elements, int32_t count,
                         tdt_result** result) {
  tdt_input input = TDT_INPUT_INIT;
  tdt_input_set_bet(&input, frames, 1, elements, count);
  return tdt_decode(model, &input, NULL, result);
}

static tdt_status text_of_best(const tdt_model* model, const tdt_result* result, tdt_text** text) {
  tdt_hypothesis best = TDT_HYPOTHESIS_INIT;
  tdt_status status = tdt_result_hypothesis(result, 0, 0, &best);
  return status != TDT_OK ? status : tdt_text_new(model, &best, NULL, text);
}
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"
)

// check turns a status into an error. The message is the calling thread's, which must not have changed since the call.
func check(status C.tdt_status) error {
	if status == C.TDT_OK {
		return nil
	}
	return errors.New(C.GoString(C.tdt_error_message()))
}

// Word is a word with its start and end in seconds.
type Word struct {
	Text       string
	Start, End float64
}

// Words decodes encoder output [E, T] with the model in a file.
func Words(path string, frames []float32) ([]Word, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var model *C.tdt_model
	if err := check(C.tdt_model_open(name, nil, &model)); err != nil {
		return nil, err
	}
	defer C.tdt_model_free(model)
	info := C.tdt_model_info{size: C.size_t(unsafe.Sizeof(C.tdt_model_info{}))}
	if err := check(C.tdt_model_get_info(model, &info)); err != nil {
		return nil, err
	}
	count := len(frames) / int(info.encoder_size)
	if count == 0 || count*int(info.encoder_size) != len(frames) {
		return nil, fmt.Errorf("frames must be [E, T] with E = %d", info.encoder_size)
	}

	var result *C.tdt_result
	data := (*C.float)(unsafe.Pointer(&frames[0]))
	if err := check(C.decode(model, data, info.encoder_size, C.int32_t(count), &result)); err != nil {
		return nil, err
	}
	defer C.tdt_result_free(result)
	var text *C.tdt_text
	if err := check(C.text_of_best(model, result, &text)); err != nil {
		return nil, err
	}
	defer C.tdt_text_free(text)

	var words []Word
	for i := C.size_t(0); i < C.tdt_text_words(text); i++ {
		word := C.tdt_word{size: C.size_t(unsafe.Sizeof(C.tdt_word{}))}
		if err := check(C.tdt_text_word(text, i, &word)); err != nil {
			return nil, err
		}
		words = append(words, Word{C.GoString(word.text), float64(word.start), float64(word.end)})
	}
	return words, nil
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: decode MODEL.tdt FRAMES.f32")
	}
	bytes, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	frames := make([]float32, len(bytes)/4)
	for i := range frames {
		frames[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
	}
	words, err := Words(arguments[0], frames)
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

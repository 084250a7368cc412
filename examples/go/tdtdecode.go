package main

/*
#cgo LDFLAGS: -ltdtdecode
#include <stdlib.h>
#include <tdtdecode.h>

// Go passes no structures with pointers to Go's memory to C, so this function makes them in C.
static tdt_status decode(const tdt_model* model, const float* frames, int32_t elements, int32_t count,
                         const tdt_allow* allow, tdt_result** result) {
  tdt_input input = TDT_INPUT_INIT;
  tdt_search search = TDT_SEARCH_INIT;
  tdt_input_set_bet(&input, frames, 1, elements, count);
  search.allow = allow;
  return tdt_decode(model, &input, &search, result);
}

static tdt_status text_of_best(const tdt_model* model, const tdt_result* result, tdt_text** text) {
  tdt_hypothesis best = TDT_HYPOTHESIS_INIT;
  tdt_status status = tdt_result_hypothesis(result, 0, 0, &best);
  return status != TDT_OK ? status : tdt_text_new(model, &best, NULL, text);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// call runs a function of the library in one thread, and turns its status into an error. The message of the last error
// is the thread's.
func call(function func() C.tdt_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if function() == C.TDT_OK {
		return nil
	}
	return errors.New(C.GoString(C.tdt_error_message()))
}

// Model is an opened model. Goroutines may share it.
type Model struct {
	pointer     *C.tdt_model
	encoderSize int
}

// Allow is what a search may emit. Goroutines may share it.
type Allow struct {
	pointer *C.tdt_allow
}

// Word is a word with its start and end in seconds.
type Word struct {
	Text       string
	Start, End float64
}

// Open opens a file that `tdtdecode pack` wrote.
func Open(path string) (*Model, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	model := &Model{}
	if err := call(func() C.tdt_status { return C.tdt_model_open(name, nil, &model.pointer) }); err != nil {
		return nil, err
	}
	info := C.tdt_model_info{size: C.size_t(unsafe.Sizeof(C.tdt_model_info{}))}
	if err := call(func() C.tdt_status { return C.tdt_model_get_info(model.pointer, &info) }); err != nil {
		model.Close()
		return nil, err
	}
	model.encoderSize = int(info.encoder_size)
	return model, nil
}

// Close frees the model. What was made of it stays usable.
func (model *Model) Close() {
	C.tdt_model_free(model.pointer)
	model.pointer = nil
}

// AllowScripts gives the tokens whose letters are all of some Unicode scripts, such as "latin" and "common".
func (model *Model) AllowScripts(names ...string) (*Allow, error) {
	list := (**C.char)(C.calloc(C.size_t(len(names)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(list))
	for i, name := range names {
		text := C.CString(name)
		defer C.free(unsafe.Pointer(text))
		unsafe.Slice(list, len(names))[i] = text
	}
	return made(func(allow **C.tdt_allow) C.tdt_status {
		return C.tdt_allow_scripts(model.pointer, list, C.size_t(len(names)), allow)
	})
}

// AllowOnly gives the tokens of a list, and no others.
func (model *Model) AllowOnly(tokens []int32) (*Allow, error) {
	return made(func(allow **C.tdt_allow) C.tdt_status {
		return C.tdt_allow_only(model.pointer, first(tokens), C.size_t(len(tokens)), allow)
	})
}

// AllowExcept gives all tokens but those of a list.
func (model *Model) AllowExcept(tokens []int32) (*Allow, error) {
	return made(func(allow **C.tdt_allow) C.tdt_status {
		return C.tdt_allow_except(model.pointer, first(tokens), C.size_t(len(tokens)), allow)
	})
}

func made(make func(**C.tdt_allow) C.tdt_status) (*Allow, error) {
	allow := &Allow{}
	if err := call(func() C.tdt_status { return make(&allow.pointer) }); err != nil {
		return nil, err
	}
	return allow, nil
}

func first(tokens []int32) *C.int32_t {
	if len(tokens) == 0 {
		return nil
	}
	return (*C.int32_t)(unsafe.Pointer(&tokens[0]))
}

// Close frees what AllowScripts, AllowOnly or AllowExcept gave.
func (allow *Allow) Close() {
	C.tdt_allow_free(allow.pointer)
	allow.pointer = nil
}

// Words decodes encoder output [E, T] greedily. If allow is nil, every token may be emitted.
func (model *Model) Words(frames []float32, allow *Allow) ([]Word, error) {
	count := len(frames) / model.encoderSize
	if count == 0 || count*model.encoderSize != len(frames) {
		return nil, fmt.Errorf("frames must be [E, T] with E = %d", model.encoderSize)
	}
	var allowed *C.tdt_allow
	if allow != nil {
		allowed = allow.pointer
	}
	var result *C.tdt_result
	data := (*C.float)(unsafe.Pointer(&frames[0]))
	if err := call(func() C.tdt_status {
		return C.decode(model.pointer, data, C.int32_t(model.encoderSize), C.int32_t(count), allowed, &result)
	}); err != nil {
		return nil, err
	}
	defer C.tdt_result_free(result)
	var text *C.tdt_text
	if err := call(func() C.tdt_status { return C.text_of_best(model.pointer, result, &text) }); err != nil {
		return nil, err
	}
	defer C.tdt_text_free(text)

	words := make([]Word, C.tdt_text_words(text))
	for i := range words {
		word := C.tdt_word{size: C.size_t(unsafe.Sizeof(C.tdt_word{}))}
		if err := call(func() C.tdt_status { return C.tdt_text_word(text, C.size_t(i), &word) }); err != nil {
			return nil, err
		}
		words[i] = Word{C.GoString(word.text), float64(word.start), float64(word.end)}
	}
	return words, nil
}

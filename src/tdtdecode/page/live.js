"use strict";
// Live: what the microphone hears goes to the server, and text comes back while one speaks.

const TRANSCRIPTION = "conversation.item.input_audio_transcription";

// Begin to listen. Returns a function that ends it and gives the recording; `told` gets the settled and the tentative text.
async function listen(key, told, failed) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const context = new AudioContext();
  const stop = () => {
    stream.getTracks().forEach((track) => track.stop());
    return context.close();
  };
  try {
    await context.audioWorklet.addModule("page/worklet.js");
    const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
    const socket = await opened(key, context.sampleRate);
    const pieces = [];
    const ended = new Promise((resolve) => {
      node.port.onmessage = ({ data }) => {
        if (data === null) return resolve();
        const samples = Int16Array.from(data, (one) => Math.max(-1, Math.min(1, one)) * 32767);
        pieces.push(samples);
        send(socket, { type: "input_audio_buffer.append", audio: base64(new Uint8Array(samples.buffer)) });
      };
    });
    const text = follower(told, failed);
    socket.onmessage = ({ data }) => text.take(JSON.parse(data));
    socket.onclose = () => text.end();
    context.createMediaStreamSource(stream).connect(node);
    return async () => {
      node.port.postMessage(null);
      await ended;
      const rate = context.sampleRate;
      await stop();
      send(socket, { type: "input_audio_buffer.commit" });
      await text.ended;
      socket.close();
      return wavOf(pieces, rate);
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function opened(key, rate) {
  const url = new URL("v1/realtime?intent=transcription", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols);
    socket.onerror = () => reject(new Error("The server does not take the connection: is the API key right?"));
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "session.created") {
        const input = { format: { type: "audio/pcm", rate }, turn_detection: null };
        const include = ["item.input_audio_transcription.tentative"];
        send(socket, { type: "session.update", session: { type: "transcription", audio: { input }, include } });
      } else if (event.type === "session.updated") {
        resolve(socket);
      } else if (event.type === "error") {
        reject(new Error(event.error.message));
      }
    };
  });
}

function send(socket, event) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(event));
}

// Puts the text together of the events of a session.
function follower(told, failed) {
  let settled = "", end;
  const ended = new Promise((resolve) => { end = resolve; });
  return {
    ended,
    end,
    take(event) {
      if (event.type === `${TRANSCRIPTION}.delta`) {
        settled += event.delta;
        told(settled, "");
      } else if (event.type === `${TRANSCRIPTION}.tentative`) {
        told(settled, event.text);
      } else if (event.type === `${TRANSCRIPTION}.completed`) {
        told(event.transcript, "");
        end();
      } else if (event.type === "error" || event.type === `${TRANSCRIPTION}.failed`) {
        failed(event.error.message);
        end();
      }
    },
  };
}

function base64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function wavOf(pieces, rate) {
  const size = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0), head = new DataView(new ArrayBuffer(44));
  const write = (at, text) => [...text].forEach((char, i) => head.setUint8(at + i, char.charCodeAt(0)));
  write(0, "RIFF");
  head.setUint32(4, 36 + size, true);
  write(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  write(36, "data");
  head.setUint32(40, size, true);
  return new Blob([head, ...pieces], { type: "audio/wav" });
}

// melcodec in a browser: sound to codes and back, with the graphs that `melcodec export-onnx` writes and onnxruntime-web.
// The numbers are those of melcodec in Python: the same filter, graphs, first phases and steps.

const LOWPASS_WIDTH = 6, ROLLOFF = 0.99;  // of the resampling filter, torchaudio's defaults, which XTTS uses

export class Melcodec {
  // Loads melcodec.json and the three graphs from the folder at `url`; `ort` is onnxruntime-web.
  static async load(ort, url) {
    const facts = await (await fetch(`${url}/melcodec.json`)).json();
    const names = ["encoder", "decoder", "vocoder"];
    const graphs = await Promise.all(names.map((name) => ort.InferenceSession.create(`${url}/${name}.onnx`)));
    return new Melcodec(ort, facts, ...graphs);
  }

  constructor(ort, facts, encoder, decoder, vocoder) {
    Object.assign(this, { ort, facts, encoder, decoder, vocoder });
    this.sampleRate = facts.model.mel.sample_rate;
    this.hop = facts.model.mel.hop_length;
  }

  // Mono samples in [-1, 1] at `sampleRate` Hz -> { codes: Q arrays of N numbers, samples: at the codec's rate }.
  async encode(samples, sampleRate) {
    const wave = resample(samples, sampleRate, this.sampleRate);
    if (!wave.length) throw new Error("the sound holds no samples");
    const { codes } = await this.encoder.run({ wave: this.floats(wave, [1, wave.length]), lengths: this.length(wave.length) });
    const [, books, count] = codes.dims, numbers = Array.from(codes.data, Number);
    return { codes: Array.from({ length: books }, (_, q) => numbers.slice(q * count, (q + 1) * count)), samples: wave };
  }

  // Codes, Q arrays of N numbers, of a sound of `numSamples` -> samples in [-1, 1].
  async decode(codes, numSamples) {
    const count = codes[0].length, flat = BigInt64Array.from(codes.flat(), BigInt);
    const tensor = new this.ort.Tensor("int64", flat, [1, codes.length, count]);
    const { mel } = await this.decoder.run({ codes: tensor, lengths: this.length(count) });
    const [, bands, most] = mel.dims, frames = Math.floor(numSamples / this.hop) + 1;
    const cropped = new Float32Array(bands * frames);
    for (let band = 0; band < bands; band++) {
      cropped.set(mel.data.subarray(band * most, band * most + frames), band * frames);
    }
    const input = this.floats(cropped, [1, bands, frames]);
    if (this.facts.vocoder.kind !== "griffin-lim") {
      const { wave } = await this.vocoder.run({ mel: input, lengths: this.length(numSamples) });
      return wave.data.slice(0, numSamples).map(clip);
    }
    const { magnitude } = await this.vocoder.run({ mel: input });
    const { iterations, momentum, seed } = this.facts.vocoder;
    return new GriffinLim(this.facts.model.mel.n_fft, this.hop).run(magnitude.data, frames, numSamples, iterations, momentum, seed);
  }

  floats(data, dims) { return new this.ort.Tensor("float32", data, dims); }
  length(value) { return new this.ort.Tensor("int64", BigInt64Array.of(BigInt(value)), [1]); }
}

const clip = (value) => Math.min(1, Math.max(-1, value));

// Samples from one rate (Hz) to another, clipped to [-1, 1]: a windowed sinc, as torchaudio.functional.resample has it.
export function resample(samples, from, to) {
  if (from === to) return Float32Array.from(samples, clip);
  const divisor = gcd(from, to), orig = from / divisor, fresh = to / divisor;
  const base = Math.min(orig, fresh) * ROLLOFF, reach = LOWPASS_WIDTH * orig / base, taps = Math.ceil(2 * reach) + 2;
  const weights = [], starts = [];
  for (let phase = 0; phase < fresh; phase++) {
    const center = phase * orig / fresh;
    starts[phase] = Math.floor(center - reach);
    weights[phase] = Float32Array.from({ length: taps }, (_, tap) => {
      const time = Math.min(LOWPASS_WIDTH, Math.max(-LOWPASS_WIDTH, (starts[phase] + tap - center) * base / orig));
      const sinc = time === 0 ? 1 : Math.sin(Math.PI * time) / (Math.PI * time);
      return sinc * Math.cos(time * Math.PI / LOWPASS_WIDTH / 2) ** 2 * base / orig;
    });
  }
  const out = new Float32Array(Math.ceil(samples.length * fresh / orig));
  for (let index = 0; index < out.length; index++) {
    const phase = index % fresh, first = Math.floor(index / fresh) * orig + starts[phase], weight = weights[phase];
    let sum = 0;
    for (let tap = 0; tap < taps; tap++) {
      const place = first + tap;
      if (place >= 0 && place < samples.length) sum += samples[place] * weight[tap];
    }
    out[index] = clip(sum);
  }
  return out;
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

// Fast Griffin-Lim, as melcodec/vocoder/griffin_lim.py explains it.
class GriffinLim {
  constructor(size, hop) {
    Object.assign(this, { size, hop, bins: size / 2 + 1, fft: new FFT(size) });
    this.window = Float64Array.from({ length: size }, (_, n) => 0.5 - 0.5 * Math.cos(2 * Math.PI * n / size));
  }

  // Magnitudes (bins x frames) -> samples in [-1, 1].
  run(magnitude, frames, numSamples, iterations, momentum, seed) {
    const random = new MersenneTwister(seed), total = frames * this.bins;
    const size = new Float64Array(total), real = new Float64Array(total), imag = new Float64Array(total);
    for (let t = 0, at = 0; t < frames; t++) {
      for (let f = 0; f < this.bins; f++, at++) {
        const turn = 2 * Math.PI * random.uniform();
        size[at] = magnitude[f * frames + t];
        real[at] = size[at] * Math.cos(turn);
        imag[at] = size[at] * Math.sin(turn);
      }
    }
    let before = [new Float64Array(total), new Float64Array(total)];
    for (let round = 0; round < iterations; round++) {
      const now = this.spectrum(this.wave(real, imag, frames, numSamples), frames);
      for (let at = 0; at < total; at++) {
        const a = now[0][at] + momentum * (now[0][at] - before[0][at]), b = now[1][at] + momentum * (now[1][at] - before[1][at]);
        const scale = size[at] / Math.max(Math.hypot(a, b), 1e-30);
        real[at] = a * scale;
        imag[at] = b * scale;
      }
      before = now;
    }
    return Float32Array.from(this.wave(real, imag, frames, numSamples), clip);
  }

  spectrum(wave, frames) {
    const { size, hop, bins, window } = this, half = size / 2;
    const real = new Float64Array(frames * bins), imag = new Float64Array(frames * bins);
    const re = new Float64Array(size), im = new Float64Array(size);
    for (let t = 0; t < frames; t++) {
      for (let n = 0; n < size; n++) {
        re[n] = (wave[t * hop + n - half] ?? 0) * window[n];
        im[n] = 0;
      }
      this.fft.run(re, im);
      real.set(re.subarray(0, bins), t * bins);
      imag.set(im.subarray(0, bins), t * bins);
    }
    return [real, imag];
  }

  wave(real, imag, frames, numSamples) {
    const { size, hop, bins, window } = this, half = size / 2;
    const sum = new Float64Array((frames - 1) * hop + size), envelope = new Float64Array(sum.length);
    const re = new Float64Array(size), im = new Float64Array(size);
    for (let t = 0; t < frames; t++) {
      for (let f = 0; f < bins; f++) {  // conjugates going in and out make the inverse of the forward transform
        const a = real[t * bins + f], b = f === 0 || f === half ? 0 : imag[t * bins + f];
        re[f] = a;
        im[f] = -b;
        if (f && f < half) { re[size - f] = a; im[size - f] = b; }
      }
      this.fft.run(re, im);
      for (let n = 0; n < size; n++) {
        sum[t * hop + n] += re[n] / size * window[n];
        envelope[t * hop + n] += window[n] * window[n];
      }
    }
    const out = new Float64Array(numSamples);
    for (let n = 0; n < numSamples; n++) out[n] = sum[n + half] / Math.max(envelope[n + half], 1e-11);
    return out;
  }
}

// A Fourier transform of a power of two, in place.
class FFT {
  constructor(size) {
    if (size & (size - 1)) throw new Error(`n_fft ${size} is no power of two`);
    this.size = size;
    this.cos = Float64Array.from({ length: size / 2 }, (_, k) => Math.cos(2 * Math.PI * k / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, k) => -Math.sin(2 * Math.PI * k / size));
    this.reversed = new Uint32Array(size);
    for (let n = 1; n < size; n++) this.reversed[n] = (this.reversed[n >> 1] >> 1) | (n & 1 ? size >> 1 : 0);
  }

  run(re, im) {
    const { size, cos, sin, reversed } = this;
    for (let n = 0; n < size; n++) {
      const m = reversed[n];
      if (m > n) { [re[n], re[m]] = [re[m], re[n]]; [im[n], im[m]] = [im[m], im[n]]; }
    }
    for (let width = 1; width < size; width *= 2) {
      const step = size / (2 * width);
      for (let start = 0; start < size; start += 2 * width) {
        for (let k = 0, turn = 0; k < width; k++, turn += step) {
          const a = start + k, b = a + width;
          const x = re[b] * cos[turn] - im[b] * sin[turn], y = re[b] * sin[turn] + im[b] * cos[turn];
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  }
}

// The random numbers of torch.Generator: Matsumoto and Nishimura 1998, "Mersenne Twister".
class MersenneTwister {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let n = 1; n < 624; n++) {
      const last = this.state[n - 1] ^ (this.state[n - 1] >>> 30);
      this.state[n] = Math.imul(last, 1812433253) + n;
    }
    this.next = 624;
  }

  // 24 bits of a number, in [0, 1), as torch.rand takes them.
  uniform() {
    const s = this.state;
    if (this.next === 624) {
      for (let n = 0; n < 624; n++) {
        const y = (s[n] & 0x80000000) | (s[(n + 1) % 624] & 0x7fffffff);
        s[n] = s[(n + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let y = s[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return (y & 0xffffff) / 0x1000000;
  }
}

// The samples of a file: { samples: mono, sampleRate }. WAV is read as it is; other formats by the browser's own decoder.
export async function readSound(buffer) {
  const wav = readWav(new DataView(buffer));
  if (wav) return wav;
  const context = new OfflineAudioContext(1, 1, rateOfFlac(new DataView(buffer)) ?? 48000);
  const audio = await context.decodeAudioData(buffer);
  return { samples: mono(Array.from({ length: audio.numberOfChannels }, (_, c) => audio.getChannelData(c))), sampleRate: audio.sampleRate };
}

const word = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((n) => view.getUint8(at + n)));

function rateOfFlac(view) {
  return view.byteLength > 22 && word(view, 0) === "fLaC" ? view.getUint32(18) >>> 12 : null;
}

// PCM of 16, 24 or 32 bits, or floats; null for anything else.
function readWav(view) {
  if (view.byteLength < 12 || word(view, 0) !== "RIFF" || word(view, 8) !== "WAVE") return null;
  let form = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const kind = word(view, at), size = view.getUint32(at + 4, true), body = at + 8;
    if (kind === "fmt ") {
      const tag = view.getUint16(body, true);
      form = {
        tag: tag === 0xfffe ? view.getUint16(body + 24, true) : tag,
        channels: view.getUint16(body + 2, true),
        sampleRate: view.getUint32(body + 4, true),
        bytes: view.getUint16(body + 14, true) / 8,
      };
    } else if (kind === "data" && form) {
      const read = sampleReader(view, form);
      if (!read) return null;
      const count = Math.floor(Math.min(size, view.byteLength - body) / (form.bytes * form.channels));
      const channel = (c) => Float32Array.from({ length: count }, (_, n) => read(body + (n * form.channels + c) * form.bytes));
      return { samples: mono(Array.from({ length: form.channels }, (_, c) => channel(c))), sampleRate: form.sampleRate };
    }
    at = body + size + (size & 1);
  }
  return null;
}

function sampleReader(view, { tag, bytes }) {
  if (tag === 3 && bytes === 4) return (at) => view.getFloat32(at, true);
  if (tag === 1 && bytes === 2) return (at) => view.getInt16(at, true) / 32768;
  if (tag === 1 && bytes === 3) return (at) => (view.getUint16(at, true) | (view.getInt8(at + 2) << 16)) / 8388608;
  if (tag === 1 && bytes === 4) return (at) => view.getInt32(at, true) / 2147483648;
  return null;
}

function mono(channels) {
  if (channels.length === 1) return Float32Array.from(channels[0]);
  return Float32Array.from(channels[0], (_, n) => channels.reduce((sum, channel) => sum + channel[n], 0) / channels.length);
}

// Samples as the bytes of a 16-bit mono WAV, which an audio element plays.
export function wavBytes(samples, sampleRate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, value) => [...value].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true); view.setUint32(28, 2 * sampleRate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, n) => view.setInt16(44 + 2 * n, Math.round(clip(value) * 32767), true));
  return view.buffer;
}

// The microphone's samples from start() until stop().
export class Recorder {
  async start() {
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };  // loudness is content
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    this.context = new AudioContext();
    const worklet = `registerProcessor("tap", class extends AudioWorkletProcessor {
      process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
    });`;
    await this.context.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(this.context, "tap");
    this.blocks = [];
    tap.port.onmessage = ({ data }) => this.blocks.push(data);
    this.context.createMediaStreamSource(this.stream).connect(tap);
  }

  async stop() {
    this.stream.getTracks().forEach((track) => track.stop());
    const sampleRate = this.context.sampleRate;
    await this.context.close();
    const samples = new Float32Array(this.blocks.reduce((sum, block) => sum + block.length, 0));
    this.blocks.reduce((at, block) => (samples.set(block, at), at + block.length), 0);
    return { samples, sampleRate };
  }
}

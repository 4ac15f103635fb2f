// The camera: frames one after the other, each when the one before has been answered.

export class Camera {
  #stream = null;
  #facing = "environment";
  several = false;

  /**
   * @param {HTMLVideoElement} video
   * @param {(frame: ImageBitmap) => Promise<void>} take called with a frame; the next one follows when it is done.
   */
  constructor(video, take) {
    this.video = video;
    this.take = take;
  }

  get running() {
    return this.#stream !== null;
  }

  /** Ask for the camera. Throws an Error with a sentence where there is none, or it is not allowed. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("The camera needs HTTPS or localhost, and this page has neither.");
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: this.#facing, width: { ideal: 1280 }, height: { ideal: 720 } },
      });
    } catch (error) {
      const reasons = {
        NotAllowedError: "The camera was not allowed. The browser's settings for this page can allow it.",
        NotFoundError: "No camera was found on this device.",
        NotReadableError: "The camera is in use by another program.",
      };
      throw new Error(reasons[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
    const stream = this.#stream;
    this.video.srcObject = stream;
    await this.video.play();
    const devices = await navigator.mediaDevices.enumerateDevices();
    this.several = devices.filter(({ kind }) => kind === "videoinput").length > 1;
    this.#follow(stream);
  }

  /** The other camera of a phone. */
  async turn() {
    this.stop();
    this.#facing = this.#facing === "environment" ? "user" : "environment";
    await this.start();
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.video.srcObject = null;
  }

  async #follow(stream) {
    while (this.#stream === stream) {
      await new Promise(requestAnimationFrame);
      if (this.#stream !== stream || this.video.readyState < 2 || this.video.videoWidth === 0) continue;
      await this.take(await createImageBitmap(this.video));
    }
  }
}

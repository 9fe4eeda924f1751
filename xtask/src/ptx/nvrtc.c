// Compiles one CUDA source to PTX with a given NVRTC: nvrtc LIBRARY SOURCE OUTPUT OPTION...
// Prints the library's version. NVRTC needs neither a GPU nor a driver.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct program program;

static void *library;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "nvrtc: %s: %s\n", what, why ? why : "failed");
  exit(1);
}

static void *symbol(const char *name) {
  void *found = dlsym(library, name);
  if (!found) fail(name, dlerror());
  return found;
}

static char *read_all(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) fail(path, "cannot be opened");
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *text = calloc((size_t)size + 1, 1);
  if (!text || fread(text, 1, (size_t)size, file) != (size_t)size) fail(path, "cannot be read");
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  if (argc < 4) fail("usage", "nvrtc LIBRARY SOURCE OUTPUT OPTION...");
  library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(argv[1], dlerror());
  int (*version)(int *, int *) = symbol("nvrtcVersion");
  int (*create)(program **, const char *, const char *, int, const char *const *, const char *const *) =
      symbol("nvrtcCreateProgram");
  int (*compile)(program *, int, const char *const *) = symbol("nvrtcCompileProgram");
  int (*log_size)(program *, size_t *) = symbol("nvrtcGetProgramLogSize");
  int (*log_text)(program *, char *) = symbol("nvrtcGetProgramLog");
  int (*ptx_size)(program *, size_t *) = symbol("nvrtcGetPTXSize");
  int (*ptx_text)(program *, char *) = symbol("nvrtcGetPTX");
  int major = 0, minor = 0;
  version(&major, &minor);
  printf("%d.%d\n", major, minor);
  program *p;
  // The name enters nothing but messages.
  if (create(&p, read_all(argv[2]), argv[2], 0, NULL, NULL)) fail(argv[2], "cannot be made a program");
  int broken = compile(p, argc - 4, (const char *const *)argv + 4);
  size_t size = 0;
  if (!log_size(p, &size) && size > 1) {
    char *text = malloc(size);
    if (text && !log_text(p, text)) fputs(text, stderr);
  }
  if (broken) return 1;
  if (ptx_size(p, &size)) fail(argv[2], "has no PTX");
  char *text = malloc(size);
  if (!text || ptx_text(p, text)) fail(argv[2], "has no PTX");
  FILE *out = fopen(argv[3], "wb");
  if (!out || fwrite(text, 1, size - 1, out) != size - 1 || fclose(out)) fail(argv[3], "cannot be written");
  return 0;
}

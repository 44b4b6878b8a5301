/* A libcuda.so.1 as far as CUDA's runtime asks it before there is a GPU: it tells the version in FAKE_DRIVER (12020 is
   12.2), and that there is no GPU. */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

static int no_device(void) { return NO_DEVICE; }

int cuInit(unsigned flags) {
    (void)flags;
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
    *version = atoi(getenv("FAKE_DRIVER"));
    return SUCCESS;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags, int *found) {
    (void)version, (void)flags;
    if (found) *found = 0;
    if (!strcmp(name, "cuDriverGetVersion")) *function = (void *)cuDriverGetVersion;
    else if (!strncmp(name, "cuGetProcAddress", 16)) *function = (void *)cuGetProcAddress_v2;
    else *function = (void *)no_device;
    return SUCCESS;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

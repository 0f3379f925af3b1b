/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1), for machines without a GPU: as many A100s as /etc/stand-in-gpus says, near
   all processors. It answers what Slurm's plugin asks about; the rest is "not supported", as on a GPU that lacks it. */
#include <stdio.h>
#include <string.h>

enum { DONE = 0, UNSUPPORTED = 3, NO_DRIVER = 9 };
typedef int answer;
typedef struct device *device;
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

static unsigned count(void)
{
    unsigned found = 0;
    FILE *file = fopen("/etc/stand-in-gpus", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%u", &found) != 1)
        found = 0;
    fclose(file);
    return found;
}

static unsigned place(device it) { return (unsigned)(unsigned long)it - 1; }

answer nvmlInit_v2(void) { return count() ? DONE : NO_DRIVER; }
answer nvmlShutdown(void) { return DONE; }
const char *nvmlErrorString(answer it) { return it == NO_DRIVER ? "Driver Not Loaded" : "Not Supported"; }
answer nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "580.65.06") < 0; }
answer nvmlSystemGetNVMLVersion(char *text, unsigned size) { return snprintf(text, size, "13.580.65.06") < 0; }
answer nvmlDeviceGetCount_v2(unsigned *found) { *found = count(); return DONE; }
answer nvmlDeviceGetHandleByIndex_v2(unsigned index, device *it) { *it = (device)(unsigned long)(index + 1); return DONE; }
answer nvmlDeviceGetName(device it, char *text, unsigned size) { (void)it; return snprintf(text, size, "NVIDIA A100-SXM4-40GB") < 0; }
answer nvmlDeviceGetUUID(device it, char *text, unsigned size) { return snprintf(text, size, "GPU-%08u", place(it)) < 0; }
answer nvmlDeviceGetMinorNumber(device it, unsigned *number) { *number = place(it); return DONE; }
answer nvmlDeviceGetCpuAffinity(device it, unsigned size, unsigned long *set)
{
    (void)it;
    memset(set, 0xff, size * sizeof *set);
    return DONE;
}
answer nvmlDeviceGetPciInfo_v3(device it, struct pci *info)
{
    memset(info, 0, sizeof *info);
    info->bus = place(it) + 1;
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    return DONE;
}

#define LACKING(name) answer name(void) { return UNSUPPORTED; }
LACKING(nvmlDeviceGetApplicationsClock)
LACKING(nvmlDeviceGetAttributes_v2)
LACKING(nvmlDeviceGetComputeInstanceId)
LACKING(nvmlDeviceGetComputeRunningProcesses_v3)
LACKING(nvmlDeviceGetGpuInstanceId)
LACKING(nvmlDeviceGetGraphicsRunningProcesses_v3)
LACKING(nvmlDeviceGetMaxMigDeviceCount)
LACKING(nvmlDeviceGetMigDeviceHandleByIndex)
LACKING(nvmlDeviceGetMigMode)
LACKING(nvmlDeviceGetNvLinkRemotePciInfo_v2)
LACKING(nvmlDeviceGetNvLinkState)
LACKING(nvmlDeviceGetProcessUtilization)
LACKING(nvmlDeviceGetSupportedGraphicsClocks)
LACKING(nvmlDeviceGetSupportedMemoryClocks)
LACKING(nvmlDeviceResetApplicationsClocks)
LACKING(nvmlDeviceSetApplicationsClocks)
